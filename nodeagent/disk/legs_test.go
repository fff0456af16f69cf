package disk_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/node"
)

// TestNodeLegsAreTheVolumes: a move runs over devices that are not the volumes that
// are found (one was detached in use, and came back as another device). What is on
// them and what the volumes' headers say need not belong together: the move is not
// resumed, and no table is changed.
func TestNodeLegsAreTheVolumes(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 50*mib)
	other := b.volume(gib)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(node.VolumePath(other), &st))
	elsewhere := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for i, gen := range []string{"-g1", "-g2"} {
		name := "ebb-" + string(b.disk) + gen + "-data"
		_, right, err := b.dm.Table(name)
		require.NoError(t, err)
		set := func(table []dm.Target) {
			_, err := b.dm.Load(name, false, table...)
			require.NoError(t, err)
			_, err = b.dm.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true})
			require.NoError(t, err)
		}
		wrong := append([]dm.Target(nil), right...)
		_, offset, _ := strings.Cut(wrong[0].Params, " ")
		wrong[0].Params = elsewhere + " " + offset
		set(wrong)
		b.restart()
		_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk})
		r := refusal(t, err, contract.VolumeFailing)
		require.Equal(t, b.vols[i], r.Volume)
		require.Contains(t, r.Message, elsewhere)
		_, is, err := b.dm.Table(name)
		require.NoError(t, err)
		require.Equal(t, wrong, is, "it was changed")
		set(right)
	}
	b.nextAgent()
	b.commit(in)
	b.check(contract.XFS)
}
