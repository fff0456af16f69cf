package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

const (
	testNode  = "i-0123456789abcdef0"
	testDisk  = contract.DiskID("d-0123456789abcdef0")
	otherDisk = contract.DiskID("d-0123456789abcdef1")
	testVol   = "vol-0123456789abcdef0"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fakeDisks is a node's disks in memory. Every field is guarded by mu; on, when
// set, is called at the start of a method and may block or fail.
type fakeDisks struct {
	mu     sync.Mutex
	disks  map[contract.DiskID]contract.Measurement
	calls  []string
	inputs map[string]any
	on     func(ctx context.Context, call string, report func(contract.CopyProgress)) error
	watch  func(disk.Event)
	ready  chan struct{} // closed when Watch was first called
	fail   chan error    // ends Watch
	once   sync.Once
}

func newFakeDisks(ids ...contract.DiskID) *fakeDisks {
	f := &fakeDisks{
		disks: map[contract.DiskID]contract.Measurement{}, inputs: map[string]any{},
		ready: make(chan struct{}), fail: make(chan error),
	}
	for _, id := range ids {
		f.disks[id] = contract.Measurement{
			Disk: id, Node: testNode, Generation: 1, SizeBytes: 64 * contract.GiB, BackingBytes: 4 * contract.GiB,
			PoolBytes: 4 * contract.GiB, PoolUsedBytes: contract.GiB, FilesystemBytes: 64 * contract.GiB, FilesystemUsedBytes: contract.GiB,
		}
	}
	return f
}

var errNoDisk = contract.Refuse(contract.DiskUnknown, "not assembled on this node")

func (f *fakeDisks) call(ctx context.Context, name string, in any, report func(contract.CopyProgress)) error {
	f.mu.Lock()
	f.calls = append(f.calls, name)
	f.inputs[name] = in
	on := f.on
	f.mu.Unlock()
	if on != nil {
		return on(ctx, name, report)
	}
	return nil
}

func (f *fakeDisks) called(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == name {
			n++
		}
	}
	return n
}

func (f *fakeDisks) set(id contract.DiskID, change func(*contract.Measurement)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.disks[id]
	change(&m)
	f.disks[id] = m
}

func (f *fakeDisks) get(id contract.DiskID) (contract.Measurement, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.disks[id]
	if !ok {
		return m, errNoDisk.WithDisk(id)
	}
	return m, nil
}

// act is a call on a disk that answers with its measurement.
func (f *fakeDisks) act(ctx context.Context, name string, id contract.DiskID, in any) (contract.Measurement, error) {
	if err := f.call(ctx, name, in, nil); err != nil {
		return contract.Measurement{}, err
	}
	return f.get(id)
}

func (f *fakeDisks) Format(ctx context.Context, in contract.FormatDiskInput) (contract.Measurement, error) {
	return f.act(ctx, "Format", in.Disk, in)
}

func (f *fakeDisks) Assemble(ctx context.Context, in contract.AssembleDiskInput) (contract.Measurement, error) {
	return f.act(ctx, "Assemble", in.Disk, in)
}

func (f *fakeDisks) Disassemble(ctx context.Context, id contract.DiskID) error {
	return f.call(ctx, "Disassemble", id, nil)
}

func (f *fakeDisks) Measure(ctx context.Context, id contract.DiskID) (contract.Measurement, error) {
	return f.act(ctx, "Measure", id, id)
}

func (f *fakeDisks) History(ctx context.Context, id contract.DiskID) ([]format.Usage, error) {
	m, err := f.act(ctx, "History", id, id)
	return []format.Usage{{Hour: 500_000, UsedMax: uint64(m.PoolUsedBytes)}}, err
}

func (f *fakeDisks) Trim(ctx context.Context, id contract.DiskID) (contract.TrimDiskResult, error) {
	m, err := f.act(ctx, "Trim", id, id)
	return contract.TrimDiskResult{TrimmedBytes: 1, Measurement: m}, err
}

func (f *fakeDisks) Reclaim(ctx context.Context, id contract.DiskID) (contract.TrimDiskResult, error) {
	before, _ := f.get(id)
	m, err := f.act(ctx, "Reclaim", id, id)
	return contract.TrimDiskResult{TrimmedBytes: before.PoolUsedBytes - m.PoolUsedBytes, Measurement: m}, err
}

func (f *fakeDisks) GrowBacking(ctx context.Context, in contract.GrowBackingInput) (contract.Measurement, error) {
	return f.act(ctx, "GrowBacking", in.Disk, in)
}

func (f *fakeDisks) Append(ctx context.Context, in contract.AppendVolumeInput) (contract.Measurement, error) {
	return f.act(ctx, "Append", in.Disk, in)
}

func (f *fakeDisks) Expand(ctx context.Context, in contract.ExpandDiskInput) (contract.Measurement, error) {
	return f.act(ctx, "Expand", in.Disk, in)
}

func (f *fakeDisks) PrepareMove(ctx context.Context, in contract.PrepareMoveInput) (contract.Measurement, error) {
	return f.act(ctx, "PrepareMove", in.Disk, in)
}

func (f *fakeDisks) Evacuate(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.EvacuateResult, error) {
	return contract.EvacuateResult{CopiedBytes: 7}, f.call(ctx, "Evacuate", in, report)
}

func (f *fakeDisks) VerifyMove(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.VerifyResult, error) {
	return contract.VerifyResult{VerifiedBytes: 7}, f.call(ctx, "VerifyMove", in, report)
}

func (f *fakeDisks) CommitMove(ctx context.Context, in contract.MoveInput) (contract.CommitResult, error) {
	m, err := f.act(ctx, "CommitMove", in.Disk, in)
	return contract.CommitResult{Generation: 2, Measurement: m}, err
}

func (f *fakeDisks) RetireBacking(ctx context.Context, in contract.MoveInput) (contract.RetireBackingResult, error) {
	return contract.RetireBackingResult{Volumes: []string{testVol}}, f.call(ctx, "RetireBacking", in, nil)
}

func (f *fakeDisks) AbortMove(ctx context.Context, in contract.MoveInput) (contract.Measurement, error) {
	return f.act(ctx, "AbortMove", in.Disk, in)
}

func (f *fakeDisks) Throttle(ctx context.Context, in contract.ThrottleMoveInput) error {
	return f.call(ctx, "Throttle", in, nil)
}

func (f *fakeDisks) Guide(id contract.DiskID, g contract.Guide) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "Guide")
	f.inputs["Guide "+string(id)] = g
}

func (f *fakeDisks) Forget(id contract.DiskID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "Forget")
	delete(f.inputs, "Guide "+string(id))
}

func (f *fakeDisks) Header(ctx context.Context, volume string) (contract.VolumeHeader, error) {
	return contract.VolumeHeader{Volume: volume, Present: true, Disk: testDisk}, f.call(ctx, "Header "+volume, nil, nil)
}

func (f *fakeDisks) Reconcile(ctx context.Context) ([]contract.DiskID, error) {
	return f.Disks(), f.call(ctx, "Reconcile", nil, nil)
}

func (f *fakeDisks) Disks() []contract.DiskID {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []contract.DiskID
	for id := range f.disks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (f *fakeDisks) Watch(ctx context.Context, report func(disk.Event)) error {
	f.mu.Lock()
	f.watch = report
	f.mu.Unlock()
	f.once.Do(func() { close(f.ready) })
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-f.fail:
		return err
	}
}

// event makes the kernel say something.
func (f *fakeDisks) event(ev disk.Event) {
	f.mu.Lock()
	report := f.watch
	f.mu.Unlock()
	report(ev)
}

// pressure is what Watch reports about a disk's active pool now.
func (f *fakeDisks) pressure(id contract.DiskID, kind disk.EventKind) {
	m, err := f.get(id)
	if err != nil {
		panic(errors.Join(errors.New("test"), err))
	}
	f.event(disk.Event{Disk: id, Kind: kind, Pressure: contract.Pressure{
		Node: testNode, Generation: m.Generation, UsedBytes: m.PoolUsedBytes, BackingBytes: m.BackingBytes,
	}})
}
