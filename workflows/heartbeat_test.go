package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TestHeartbeatTimeout: the setting decides how soon every activity of the
// operation is missed; without it the default does.
func TestHeartbeatTimeout(t *testing.T) {
	for set, want := range map[time.Duration]time.Duration{0: contract.NodeHeartbeat, 10 * time.Second: 10 * time.Second} {
		w := made(t)
		seen := map[string]time.Duration{}
		w.env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
			seen[info.ActivityType.Name] = info.HeartbeatTimeout
		})
		in := shrinkIn
		in.Settings.HeartbeatTimeout = set
		r := w.run(contract.ShrinkWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r)
		for _, name := range []string{string(contract.TrimDisk), string(contract.CreateVolume), string(contract.EvacuateDisk), string(contract.CommitMove), string(contract.DetachVolume)} {
			require.Equal(t, want, seen[name], name)
		}
	}
}

// TestHeartbeatTooShort: a timeout that a heartbeat may miss is refused.
func TestHeartbeatTooShort(t *testing.T) {
	w := made(t)
	in := shrinkIn
	in.Settings.HeartbeatTimeout = time.Second
	r := w.run(contract.ShrinkWorkflow, in)
	require.Equal(t, contract.BadInput, r.Refusal.Code)
}
