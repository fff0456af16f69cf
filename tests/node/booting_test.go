package node_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
)

// TestAttachWhileBooting attaches volumes at every moment of a boot, and in a
// power cut: each is there when the node is up.
func TestAttachWhileBooting(t *testing.T) {
	n := boot(t, "i-booting")
	dir := t.TempDir()
	want := 0
	attach := func() {
		want++
		id := fmt.Sprintf("vol-%d", want)
		require.NoError(t, n.Attach(t.Context(), id, "", filepath.Join(dir, id), 16<<20))
	}
	for range 3 {
		attach()
		cut := make(chan error, 1)
		go func() { cut <- n.PowerCut() }()
		attach()
		require.NoError(t, <-cut)
		booted := make(chan error, 1)
		go func() { booted <- n.Boot(t.Context()) }()
		for range 2 {
			time.Sleep(40 * time.Millisecond) // somewhere in the boot
			attach()
		}
		require.NoError(t, <-booted)
		for i := range want {
			sh(t, n, "test -b "+node.VolumePath(fmt.Sprintf("vol-%d", i+1)))
		}
	}
}
