package cmd

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/ledger"
	"github.com/ebb-storage/ebb/internal/plan"
)

func TestRegionOfVolumes(t *testing.T) {
	in := func(zones ...string) (disks []ledger.Disk) {
		for _, z := range zones {
			disks = append(disks, ledger.Disk{Facts: plan.Facts{Zone: z}})
		}
		return disks
	}
	require.Empty(t, regionOf(nil))
	require.Empty(t, regionOf(in("", "nonsense")))
	require.Equal(t, "us-east-1", regionOf(in("us-east-1a")))
	require.Equal(t, "eu-central-1", regionOf(in("us-east-1a", "eu-central-1a", "eu-central-1b")))
	require.Equal(t, "us-gov-west-1", regionOf(in("us-gov-west-1c")))
	require.Equal(t, "us-west-2", regionOf(in("us-west-2-lax-1a")), "a local zone is of its region")
}
