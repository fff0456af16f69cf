package ec2sim_test

import (
	"context"
	"crypto/rand"
	"os"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// latePlug has its instance write until the very moment it stands still.
type latePlug struct {
	fakePlug
	late func()
}

func (p *latePlug) Pause(ctx context.Context, id string) (func(), error) {
	p.late()
	return p.fakePlug.Pause(ctx, id)
}

// Most of a snapshot is copied while the instance runs on; what it writes and
// trims meanwhile is in the snapshot all the same.
func TestSnapshotHasWhatChangedWhileItWasCopied(t *testing.T) {
	plug := &latePlug{}
	s, c := start(t, ec2sim.Options{Plug: plug, GiB: 1 << 20, MaxVolumeGiB: 64})
	vol := create(t, c, 16)
	attach(t, c, vol, inst1, "/dev/sdf")
	waitAttachment(t, s, vol, ec2sim.StateAttached)
	f, err := os.OpenFile(s.VolumePath(vol), os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	data := make([]byte, 5<<20+777)
	_, err = rand.Read(data)
	require.NoError(t, err)
	_, err = f.WriteAt(data, 1<<20)
	require.NoError(t, err)
	plug.late = func() {
		for at, text := range map[int64]string{3<<20 + 5: "over data", 12 << 20: "into a hole", 16<<20 - 4: "last"} {
			_, err := f.WriteAt([]byte(text), at)
			require.NoError(t, err)
		}
		require.NoError(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4<<20, 1<<20))
	}
	snap, err := c.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &vol})
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("too late"), 2<<20)
	require.NoError(t, err)

	got, err := os.ReadFile(s.SnapshotPath(*snap.SnapshotId))
	require.NoError(t, err)
	want := make([]byte, 16<<20)
	copy(want[1<<20:], data)
	copy(want[3<<20+5:], "over data")
	copy(want[12<<20:], "into a hole")
	copy(want[16<<20-4:], "last")
	clear(want[4<<20 : 5<<20])
	require.Len(t, got, len(want))
	for i := range want {
		if want[i] != got[i] {
			t.Fatalf("byte %d differs", i)
		}
	}
	fi, err := os.Stat(s.SnapshotPath(*snap.SnapshotId))
	require.NoError(t, err)
	require.Less(t, fi.Sys().(*syscall.Stat_t).Blocks*512, int64(5<<20), "what was trimmed is a hole")
	require.Equal(t, 1, plug.paused)
	require.Equal(t, 1, plug.resumed)
}
