// Package mutant breaks the invariants of the data plane on purpose, one at a
// time, and wants a test to turn red. A mutant that survives is a promise that
// no test keeps.
//
// It runs in the heavy matrix only (EBB_TEST_FULL=1): each mutant boots a node.
package mutant

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mutant is a change to the data plane and the test that must notice it.
type mutant struct {
	invariant string
	what      string
	file      string // in nodeagent/disk
	old, new  string // must occur exactly once
	test      string // in nodeagent/disk, run inside a node (or on the host when it begins with ^TestPowerCut)
}

var mutants = []mutant{
	{
		"I1", "regions that became used before the first swap are not found", "move.go",
		"late := after.Get(r) && !before.Get(r)", "late := false && after.Get(r)", "TestNodeFalseCleanIsCopied",
	},
	{
		"I1", "every second used region is taken for unused", "move.go",
		"case !before.Get(r) && (c", "case (!before.Get(r) || r%2 == 1) && (c", "TestNodeMove$/alone",
	},
	{
		"I1", "what was written since it was compared is taken for proven", "carried.go",
		"return since.Writes != now.Writes || now.InFlight", "return false", "TestNodePrecopySeesWrites/log-a",
	},
	{
		"I1", "what was written between the proof and the first swap is not found", "move.go",
		"late = !c.provenRegion(", "late = late && !c.provenRegion(", "TestNodePrecopySeesWrites/log-a",
	},
	{
		"I1", "a pre-copy does not compare", "crew.go",
		"return buf, bytes.Equal(a, b), nil", "return buf, bytes.Equal(a, a), nil", "TestNodePrecopyFindsDamage",
	},
	{
		"I1", "what is written while an area is compared is taken for older", "precopy.go",
		"		b.end(true)\n	}\n	return nil", "		if late, err := p.m.DM.CountersOf(topName(p.in.Disk), p.count, i, 1); err == nil {\n			x.since = late[0]\n		}\n		b.end(true)\n	}\n	return nil", "TestNodePrecopySeesWrites/compare",
	},
	{
		"I1", "an area is proven before all of it was compared", "crew.go",
		"if b.open--; b.open > 0 {", "if b.open--; b.open > 1 {", "TestBoutProvesWholeAreas",
	},
	{
		"I1", "a piece that differs is forgotten when the next is equal", "crew.go",
		"b.differs = b.differs || !same", "b.differs = !same", "TestBoutProvesWholeAreas",
	},
	{
		"I2", "what a pre-copy has brought answers while log A is in force", "move.go",
		"dm.ReadElsewhere(size, thin.Dev, old.Dev)", "dm.ReadElsewhere(size, thin.Dev, thin.Dev)", "TestNodeReadErrorAfterPrecopy",
	},
	{
		"I2", "the new thin device answers by itself while log A is in force", "move.go",
		"m.build(ctx, n, fresh, &old.Dev)", "m.build(ctx, n, fresh, nil)", "TestNodeReadErrorWhileBeginning",
	},
	{
		"I2", "swaps away from a mirror flush", "stack.go",
		"info, err := m.DM.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true})", "info, err := m.DM.Resume(name, dm.ResumeFlags{Internal: true})", "TestNodeNewVolumeFails$",
	},
	{
		"I2", "a failed leg is not dropped", "abort.go",
		"if err != nil || !ok || st.AllAlive() ||", "if err != nil || !ok || len(st.Health) > 0 ||", "TestNodeNewVolumeFailsWithoutAgent",
	},
	{
		"I2", "a leg that fails before a commit's swap is looked at as the headers were", "abort.go",
		"if h.view.active.head.MovePhase == format.NoMove {", "if false {", "TestNodeNewVolumeFailsBeforeSwap",
	},
	{
		"I3", "a device that has any table keeps it: half-begun mirrors are not put back", "stack.go",
		"if sameTable(now, table) {", "if len(now) == len(table) {", "TestNodeAgentDies/abort",
	},
	{
		"I3", "a table that a dead agent has loaded stays", "stack.go",
		"if info.InactivePresent {", "if false {", "TestNodeAgentDiesBeforeSwap/abort",
	},
	{
		"I3", "what is suspended stays so when the disk cannot be brought up", "reconcile.go",
		"if err == nil && is.Suspended {", "if err == nil && is.Suspended && i.Suspended {", "TestNodeSuspendedIsResumed",
	},
	{
		"I3", "a device that cannot run with its table does not get another", "stack.go",
		"break // its live table", "return info, err // its live table", "TestNodeSuspendedIsResumed",
	},
	{
		"I4", "an abort leaves the move in the old header", "abort.go",
		"m.save(ctx, a, endMove); err != nil {\n		// One of the two", "m.save(ctx, a, func(*format.Header) {}); err != nil {\n		// One of the two", "TestNodeStaleLogIsNeverResumed",
	},
	{
		"I5", "the old volume alone is taken for the truth during a commit", "view.go",
		"case a.MovePhase == format.Committing:", "case a.MovePhase == format.Committing && a.SizeBytes == 0:", "TestNodeCommitWithoutPeer",
	},
	{
		"I5", "the swap comes without the new header", "commit.go",
		"h.Role, h.MovePhase, h.ThrottleMiBs, h.Paused = format.Active, format.NoMove, 0, false", "h.ThrottleMiBs = 0", "TestNodeMove$",
	},
	{
		"I5", "an abort of a commit does not rise above the new header", "assemble.go",
		"if h.MovePhase == format.Committing {", "if h.MovePhase == format.Committing && h.SizeBytes == 0 {", "TestNodeNewVolumeFailsWhileCommitting",
	},
	{
		"I6", "a log is believed although the disk ran beside its mirror", "assemble.go",
		"stale && v.moving()", "stale && v.moving() && v.active.head.SizeBytes == 0", "TestNodeDiskBesideItsMirror",
	},
	{
		"I6", "a move is not taken up after a power cut", "view.go",
		"v.peered() && v.incoming.head.MovePhase == format.Copying", "v.peered() && v.incoming.head.MovePhase == format.Committing", "^TestPowerCut/half-mirrored",
	},
	{
		"detached in use", "a running pool is put over a volume that came back", "legs.go",
		"t.Params != want[i].Params", "t.Params != want[i].Params && false", "TestNodeVolumeComesBackInUse",
	},
	{
		"detached in use", "a disk in use is put over a generation from elsewhere", "legs.go",
		"used && !running", "used && !running && false", "TestNodeMovedElsewhereInUse",
	},
	{
		"full pools wait", "the kernel's minute is left in force and new pools fail at once", "stack.go",
		"b.head.BlockBytes/sector, m.markBlocks(b)))", "b.head.BlockBytes/sector, m.markBlocks(b), \"error_if_no_space\"))", "TestNodeFullPoolWaits",
	},
	{
		"full pools wait", "a pool that is given up keeps the writes it has no room for", "abort.go",
		"	m.failOthersWhenFull(d, a.head)\n	m.unthrottle(d)", "	m.unthrottle(d)", "TestNodeAbortOfFullMove",
	},
	{
		"full pools wait", "a pool that was made by thin_restore is not made extendable", "stack.go",
		"thinmap.MakeExtendable(dev, volume.AlignedBuffer(thinmap.BlockBytes))", "error(nil)", "TestNodeCommitOfFullMove",
	},
	{
		"verification", "differences are not looked at", "compare.go",
		"		if p := (piece{at, min(pieceBytes, len(a)-at)}); !p.same(a, b) {", "		if p := (piece{at, min(pieceBytes, len(a)-at)}); !p.same(a, a) {", "TestNodeVerifyFindsDamage",
	},
	{
		"verification", "what differed is read again and not compared", "compare.go",
		"			if !p.same(a, b) {\n				still =", "			if !p.same(a, a) {\n				still =", "TestNodeVerifyHotChunk",
	},
	{
		"verification", "what differed is taken for unmapped", "compare.go",
		"		if lo < hi && !bytes.Equal(", "		if lo > hi && !bytes.Equal(", "TestNodeVerifyFindsDamage",
	},
	{
		"full pools wait", "a pool that was to be given up fails its writes ever after", "stack.go",
		"if strings.Contains(pa, dm.ErrorIfNoSpace) != strings.Contains(pb, dm.ErrorIfNoSpace) {", "if false {", "TestNodeAssembledDuringPrecopy",
	},
	{
		"a mute volume", "the others wait for it", "scan.go",
		"	case <-patience.C:\n		return nil, mute\n", "", "TestNodeMuteVolume$",
	},
	{
		"a mute volume", "its disk does not come up when it answers", "reconcile.go",
		"err := m.reconcile(ctx, d)\n			if err != nil {", "var err error\n			if err != nil {", "TestNodeMuteVolume$",
	},
	{
		"a mute volume", "a disk one of whose volumes answers is taken for tried", "reconcile.go",
		"			if errors.Is(err, errMute) {", "			if false {", "TestNodeMuteVolume$",
	},
	{
		"a mute volume", "an operation begins on what a dead agent left", "lock.go",
		"	if h.untidy.Load() {", "	if false {", "TestNodeMuteVolumeOfADeadAgent",
	},
	{
		"a mute volume", "what an operation has brought up or taken down is brought into order after it", "reconcile.go",
		"if !h.untidy.Load() && (h.down", "if false && (h.down", "TestNodeReconcileComesTooLate",
	},
	{
		"full pools wait", "one pool's pressure hides the other's", "watch.go",
		"	h.pressed[b.head.Generation] = time.Now()", "	h.pressed[1], h.pressed[2] = time.Now(), time.Now()", "TestNodeBothPoolsPress",
	},
	{
		"a pool that is given up", "it is measured like any other", "measure.go",
		"	if givenUp(st) {", "	if false {", "TestNodePoolGivenUp",
	},
	{
		"full pools wait", "a mount keeps the growth out that it waits for", "assemble.go",
		"h.aside(func() error { return mountAt(top, fs, mountPath) })", "mountAt(top, fs, mountPath)", "TestNodeMountAtFullPool",
	},
	{
		"full pools wait", "an unmount keeps the growth out that it waits for", "assemble.go",
		"h.aside(func() (err error) { from, err = unmount(d, top.Dev); return err })", "func() (err error) { from, err = unmount(d, top.Dev); return err }()", "TestNodeUnmountAtFullPool/flushed",
	},
	{
		"full pools wait", "a filesystem's growth keeps the pool's out", "grow.go",
		"h.aside(func() error { return mnt.grow(ctx, dm.DevPath(top)) })", "mnt.grow(ctx, dm.DevPath(top))", "TestNodeExpandAtFullPool/xfs",
	},
	{
		"I2", "a leg that fails while the disk is unmounted is not dropped", "assemble.go",
		"h.aside(func() (err error) { from", "h.swap(func() (err error) { from", "TestNodeNewVolumeFailsInUnmount",
	},
}

func TestMutantsDie(t *testing.T) {
	full := os.Getenv("EBB_TEST_FULL") != ""
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for _, m := range mutants {
		t.Run(m.invariant+" "+m.what, func(t *testing.T) {
			path := filepath.Join(root, "nodeagent", "disk", m.file)
			src, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(src), m.old), "the code to break has changed: bring the mutant up to date")
			if !full {
				t.Skip("heavy: EBB_TEST_FULL=1")
			}
			dir := t.TempDir()
			broken := filepath.Join(dir, m.file)
			require.NoError(t, os.WriteFile(broken, []byte(strings.Replace(string(src), m.old, m.new, 1)), 0o644))
			overlay := filepath.Join(dir, "overlay.json")
			b, err := json.Marshal(map[string]map[string]string{"Replace": {path: broken}})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(overlay, b, 0o644))

			binary := filepath.Join(dir, "disk.test")
			build := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-c", "-overlay", overlay, "-o", binary, ".")
			build.Dir = filepath.Dir(path)
			out, err := build.CombinedOutput()
			require.NoError(t, err, "a mutant must compile: %s", out)

			run := "^TestInNode$"
			if strings.HasPrefix(m.test, "^TestPowerCut") {
				run = m.test
			}
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, "-test.run="+run, "-test.timeout=2m")
			cmd.Dir = filepath.Dir(path)
			cmd.Env = append(os.Environ(), "EBB_TEST_RUN="+m.test)
			out, err = cmd.CombinedOutput()
			require.Error(t, err, "the mutant lives: %s does not notice that %s", m.test, m.what)
			// Writes that are held for ever end by the clock.
			require.Regexp(t, "FAIL|panic: test timed out", string(out))
			t.Logf("%s turned red", m.test)
		})
	}
}
