package disk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A ballast that takes nothing has no file open either: that would keep the
// filesystem mounted, with nothing to tell why.
func TestBallastOfNothingIsNone(t *testing.T) {
	var a ballast
	defer a.drop()
	if err := a.resize(mount{path: "/dev/shm"}, 1<<19); err != nil {
		t.Skip(err)
	}
	require.Zero(t, a.held.Load())
	require.Nil(t, a.f)
}

// What files use cannot be told while a ballast is resized: the last that is known
// stands.
func TestBallastBeingResized(t *testing.T) {
	var a ballast
	mnt := mount{path: t.TempDir()}
	_, used, err := a.usage(mnt)
	require.NoError(t, err)
	require.Positive(t, used)
	a.changes.Add(1)
	a.held.Store(used / 2)
	_, during, err := a.usage(mnt)
	require.NoError(t, err)
	require.Equal(t, used, during)
	a.changes.Add(1)
	_, after, err := a.usage(mnt)
	require.NoError(t, err)
	require.InDelta(t, used/2, after, float64(used/4))
}
