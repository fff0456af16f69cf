package ec2_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// TestCreateIsPatient: a new volume that EC2 does not describe yet has not
// failed, for as long as describes may lag behind.
func TestCreateIsPatient(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe, o.StaleJitter = 300*time.Millisecond, false })
	f.Activities = ec2.New(f.api, ec2.Options{PollMin: 5 * time.Millisecond, PollMax: 2 * time.Second, Settle: 600 * time.Millisecond})
	f.create(2)
	require.Equal(t, 1, f.calls("CreateVolume"))
	require.Zero(t, f.calls("DeleteVolume"))
}
