package node_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
)

func TestResizeUnderAMount(t *testing.T) {
	n := boot(t, "i-resize")
	path := filepath.Join(t.TempDir(), "with,odd:name")
	require.NoError(t, n.Attach(t.Context(), "vol-1", "/dev/sdf", path, 300<<20))
	require.NoError(t, n.Attach(t.Context(), "vol-1", "/dev/sdf", path, 300<<20), "safe to repeat")
	dev := node.VolumePath("vol-1")
	sh(t, n, "mkfs.xfs -q "+dev+" && mkdir -p /run/m && mount "+dev+" /run/m && echo before > /run/m/f && sync -f /run/m")
	for _, size := range []string{"629145600", "1073741824"} { // each beyond what the disk below could see
		bytes := map[string]int64{"629145600": 600 << 20, "1073741824": 1 << 30}[size]
		require.NoError(t, n.Resize(t.Context(), "vol-1", bytes))
		require.Equal(t, size, sh(t, n, "blockdev --getsize64 "+dev))
		sh(t, n, "xfs_growfs /run/m && cat /run/m/f")
	}
	sh(t, n, "dd if=/dev/urandom of=/run/m/big bs=1M count=500 conv=fsync status=none && md5sum /run/m/big > /run/sum && umount /run/m && mount "+dev+" /run/m && md5sum -c /run/sum && umount /run/m && xfs_repair -n "+dev)
	require.NoError(t, n.Detach(t.Context(), "vol-1"))
	require.ErrorIs(t, n.Resize(t.Context(), "vol-1", 1<<30), node.ErrNotAttached)
}

func TestFaults(t *testing.T) {
	n := boot(t, "i-fault")
	require.NoError(t, n.Attach(t.Context(), "vol-1", "", filepath.Join(t.TempDir(), "v"), 64<<20))
	dev := node.VolumePath("vol-1")
	// The device stays open over all of it.
	keep, err := n.Start(t.Context(), node.Command{Path: "sleep", Args: []string{"600"}})
	require.NoError(t, err)
	sh(t, n, "exec 3<>"+dev+"; sleep 600 <&3 >/dev/null 2>&1 & ")
	read := "dd if=" + dev + " of=/dev/null bs=4k count=8 iflag=direct status=none"
	write := "dd if=/dev/zero of=" + dev + " bs=4k count=8 oflag=direct status=none"
	for _, c := range []struct {
		fault       node.Fault
		read, write bool // work
	}{
		{node.Fault{}, true, true},
		{node.Fault{Kind: node.FaultError}, false, false},
		{node.Fault{Kind: node.FaultErrorWrites}, true, false},
		{node.Fault{Kind: node.FaultErrorReads}, false, true},
		{node.Fault{Kind: node.FaultDelay, DelayMS: 20}, true, true},
		{node.Fault{Kind: node.FaultNone}, true, true},
		{node.Fault{Kind: node.FaultDust, Blocks: []int64{3, 100}}, false, true},
	} {
		require.NoError(t, n.SetVolumeFault(t.Context(), "vol-1", c.fault), c.fault.Kind)
		_, code := try(t, n, read)
		require.Equal(t, c.read, code == 0, "read with %q", c.fault.Kind)
		_, code = try(t, n, write)
		require.Equal(t, c.write, code == 0, "write with %q", c.fault.Kind)
	}
	sh(t, n, read) // the dust was written over
	require.Error(t, n.SetVolumeFault(t.Context(), "vol-1", node.Fault{Kind: "earthquake"}))
	require.ErrorIs(t, n.Detach(t.Context(), "vol-1"), node.ErrBusy)
	require.NoError(t, keep.Kill())
}

func TestSlots(t *testing.T) {
	n := boot(t, "i-slots")
	dir := t.TempDir()
	names := strings.Split("a b c d e f g h i j k l m n o", " ")
	for _, v := range names {
		require.NoError(t, n.Attach(t.Context(), "vol-"+v, "", filepath.Join(dir, v), 16<<20))
	}
	require.ErrorIs(t, n.Attach(t.Context(), "vol-p", "", filepath.Join(dir, "p"), 16<<20), node.ErrNoSlot)
	require.NoError(t, n.Resize(t.Context(), "vol-c", 32<<20))
	require.NoError(t, n.Resize(t.Context(), "vol-d", 32<<20))
	require.NoError(t, n.PowerCut())
	require.NoError(t, n.Detach(t.Context(), "vol-a"))
	require.NoError(t, n.Boot(t.Context()))
	require.Equal(t, "14", sh(t, n, "cat /sys/block/dm-*/dm/uuid | grep -v scratch | grep -c EBSVOL-"))
	require.Equal(t, "33554432", sh(t, n, "blockdev --getsize64 "+node.VolumePath("vol-d")))
}
