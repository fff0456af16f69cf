package ec2_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// TestAttachmentIsNotJudgedByThePast: a describe from before the last attachment or
// detachment is not taken for its end.
func TestAttachmentIsNotJudgedByThePast(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) {
		// A describe is doubted for a quarter of Settle: 100 ms.
		o.StaleDescribe, o.Lag.Create, o.Lag.Attach, o.Lag.Detach = 90*time.Millisecond, ec2sim.Fixed(0), ec2sim.Fixed(0), ec2sim.Fixed(0)
	})
	var v contract.VolumeFacts
	for i := range 40 {
		if i%2 == 0 {
			v = f.create(5)
		}
		f.attach(v.ID, nodeA)
		is, _ := f.sim.Volume(v.ID)
		require.NotNil(t, is.Attachment, "attached")
		_, err := f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA})
		require.NoError(t, err)
		is, _ = f.sim.Volume(v.ID)
		require.Nil(t, is.Attachment, "detached")
	}
}
