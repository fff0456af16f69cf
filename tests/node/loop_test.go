package node_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

// TestLoop runs the tests of this package once more, with loop nodes: inside a UML node, which is a host
// with root and device-mapper.
func TestLoop(t *testing.T) {
	if err := node.Available(node.KindUML); err != nil || nodetest.Inside() {
		t.Skip("needs a UML node: ", err)
	}
	if testing.Short() {
		t.Skip("takes a minute")
	}
	n := nodetest.Boot(t, node.Options{Kind: node.KindUML, ID: "i-host", MemoryMiB: 768})
	nodetest.AttachVolume(t, n, "vol-scratch", 4<<30) // loop over the host's filesystem never sees a file grow
	sh(t, n, "mkdir /run/scratch && mkfs.ext4 -q "+node.VolumePath("vol-scratch")+" && mount "+node.VolumePath("vol-scratch")+" /run/scratch")
	nodetest.Run(t, n, "^(TestExec|TestVolumeSurvivesPowerCut|TestStart|TestShutdownWritesBack|TestResizeUnderAMount|TestFaults|TestSlots|TestPause|TestTwoNodes|TestStackIsDemolished)$",
		node.KindEnv+"=loop", "TMPDIR=/run/scratch")
	require.Equal(t, "ebsvol-vol-scratch", sh(t, n, "dmsetup ls | cut -f1 | grep -v ebs-error"), "nothing is left")
	require.Empty(t, sh(t, n, "losetup -a"))
}

// TestStackIsDemolished cuts the power of a node with a stack of devices and a writer on top.
func TestStackIsDemolished(t *testing.T) {
	n := boot(t, "i-stack")
	dir := t.TempDir()
	for _, v := range []string{"vol-1", "vol-2"} {
		require.NoError(t, n.Attach(t.Context(), v, "", filepath.Join(dir, v), 64<<20))
	}
	sh(t, n, `half() { echo "0 65536 linear $1 0"; }
		dmsetup create low1 --table "$(half `+node.VolumePath("vol-1")+`)" && dmsetup create low2 --table "$(half `+node.VolumePath("vol-2")+`)"
		printf '0 65536 linear /dev/mapper/low1 0\n65536 65536 linear /dev/mapper/low2 0\n' | dmsetup create top
		mkfs.ext4 -q /dev/mapper/top && mkdir -p /run/m && mount /dev/mapper/top /run/m && echo old > /run/m/old && sync -f /run/m`)
	var out bytes.Buffer
	p, err := n.Start(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "cd /run/m; while :; do date > f; sync -f .; echo .; done"}, Stdout: &out})
	require.NoError(t, err)
	require.NoError(t, n.PowerCut())
	_, err = p.Wait()
	require.ErrorContains(t, err, "lost the node")
	require.NoError(t, n.Boot(t.Context()))
	require.Equal(t, "ebsvol-vol-1 ebsvol-vol-2", sh(t, n, "echo $(dmsetup ls | cut -f1 | grep -vE 'ebs-error|scratch' | sort)"))
	require.NoError(t, n.Detach(t.Context(), "vol-1"))
	_, err = os.Stat(filepath.Join(dir, "vol-1"))
	require.NoError(t, err)
}
