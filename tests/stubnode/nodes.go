package stubnode

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/contract"
)

// overhead of every backing.
const overhead = int64(64 << 20)

// EC2 is what a node sees of EC2: the volumes attached to it, with their sizes.
type EC2 interface {
	AttachedGiB(node string) map[string]int64
}

// Nodes is every node of a test. Its methods are safe for concurrent use.
type Nodes struct {
	ec2 EC2

	mu    sync.Mutex
	disks map[contract.DiskID]*Disk
	// hook is called before and after every activity, without the lock.
	hook Hook
	// hold makes copies wait until it is closed.
	hold chan struct{}
	// unfit nodes answer a preflight with a check that fails.
	unfit map[string]contract.Check
}

// Hook may fail a call before its effect, or after it.
type Hook func(activity, node string, after bool) error

// Disk is the state on a disk's volumes and in the kernel of its node.
type Disk struct {
	ID         contract.DiskID
	Name       string
	SizeBytes  int64
	UsedBytes  int64
	Filesystem contract.Filesystem
	Mount      string
	Generation uint64
	Members    []contract.Member
	Node       string // where it is assembled, empty when nowhere
	Busy       bool   // open by a program: it cannot be taken down
	Move       *contract.MoveState
	Retired    map[uint64][]string // volumes by generation whose headers say retired
	Throttle   contract.ThrottleMoveInput
	Copies     int // EvacuateDisk runs
	Hours      []contract.HistoryHour
	Refuse     *contract.Refusal
	Usage      contract.UsageSummary // of its past; zero: 60 days at the present usage
	Guide      *contract.Guide       // as SurveyNode was told last
}

// New makes nodes on top of EC2.
func New(ec2 EC2) *Nodes {
	return &Nodes{ec2: ec2, disks: map[contract.DiskID]*Disk{}, unfit: map[string]contract.Check{}}
}

// Unfit makes a node's preflight fail with a check.
func (n *Nodes) Unfit(node string, c contract.Check) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unfit[node] = c
}

// SetHook replaces the hook.
func (n *Nodes) SetHook(h Hook) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hook = h
}

// Hold makes copies wait until the returned function is called.
func (n *Nodes) Hold() (release func()) {
	ch := make(chan struct{})
	n.mu.Lock()
	n.hold = ch
	n.mu.Unlock()
	return sync.OnceFunc(func() { close(ch) })
}

// With runs fn on a disk's state, nil when no volume has it.
func (n *Nodes) With(id contract.DiskID, fn func(*Disk)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn(n.disks[id])
}

// Off cuts a node's power: nothing is assembled there any more.
func (n *Nodes) Off(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.disks {
		if d.Node == node {
			d.Node = ""
		}
	}
}

// Register binds the activities of every node on one registry; the task queue
// says which node is meant.
func (n *Nodes) Register(r worker.ActivityRegistry) {
	bind(n, r, contract.Preflight, n.preflight)
	bind(n, r, contract.FormatDisk, n.format)
	bind(n, r, contract.AssembleDisk, n.assemble)
	bind(n, r, contract.DisassembleDisk, n.disassemble)
	bind(n, r, contract.MeasureDisk, func(node string, in contract.MeasureDiskInput) (contract.Measurement, error) {
		return n.measure(node, in.Disk)
	})
	bind(n, r, contract.ReadHistory, func(node string, in contract.ReadHistoryInput) (contract.ReadHistoryResult, error) {
		return n.history(node, in)
	})
	bind(n, r, contract.TrimDisk, func(node string, in contract.TrimDiskInput) (contract.TrimDiskResult, error) {
		m, err := n.measure(node, in.Disk)
		return contract.TrimDiskResult{Measurement: m}, err
	})
	bind(n, r, contract.SurveyNode, n.survey)
	bind(n, r, contract.ReadHeaders, n.headers)
	bind(n, r, contract.GrowBacking, n.grow)
	bind(n, r, contract.AppendVolume, n.append)
	bind(n, r, contract.ExpandDisk, n.expand)
	bind(n, r, contract.PrepareMove, n.prepare)
	bind(n, r, contract.VerifyMove, n.verify)
	bind(n, r, contract.CommitMove, n.commit)
	bind(n, r, contract.RetireBacking, n.retire)
	bind(n, r, contract.AbortMove, n.abort)
	bind(n, r, contract.ThrottleMove, n.throttle)
	contract.EvacuateDisk.Register(r, func(ctx context.Context, in contract.MoveInput) (contract.EvacuateResult, error) {
		return around(ctx, n, "EvacuateDisk", func(node string) (contract.EvacuateResult, error) {
			if err := n.wait(ctx); err != nil {
				return contract.EvacuateResult{}, err
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.evacuate(node, in)
		})
	})
}

func bind[In, Out any](n *Nodes, r worker.ActivityRegistry, a contract.Activity[In, Out], fn func(string, In) (Out, error)) {
	a.Register(r, func(ctx context.Context, in In) (Out, error) {
		return around(ctx, n, string(a), func(node string) (Out, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			return fn(node, in)
		})
	})
}

func around[Out any](ctx context.Context, n *Nodes, name string, fn func(node string) (Out, error)) (Out, error) {
	var zero Out
	node := strings.TrimPrefix(activity.GetInfo(ctx).TaskQueue, contract.NodeQueue(""))
	n.mu.Lock()
	hook := n.hook
	n.mu.Unlock()
	if hook != nil {
		if err := hook(name, node, false); err != nil {
			return zero, err
		}
	}
	out, err := fn(node)
	if err == nil && hook != nil {
		err = hook(name, node, true)
	}
	if err != nil {
		return zero, err
	}
	return out, nil
}

// wait holds a copy, heartbeating.
func (n *Nodes) wait(ctx context.Context) error {
	n.mu.Lock()
	ch := n.hold
	n.mu.Unlock()
	if ch == nil {
		return nil
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return fmt.Errorf("the worker stops")
		case <-tick.C:
			activity.RecordHeartbeat(ctx, contract.CopyProgress{Phase: contract.PhaseCopy, DoneBytes: 1, TotalBytes: 2})
		}
	}
}

// on finds a disk assembled on node, with all its volumes.
func (n *Nodes) on(node string, id contract.DiskID) (*Disk, error) {
	d, err := n.here(node, id)
	if err != nil {
		return nil, err
	}
	return d, d.complete(node, n.ec2.AttachedGiB(node))
}

func (n *Nodes) here(node string, id contract.DiskID) (*Disk, error) {
	d := n.disks[id]
	if d == nil {
		return nil, contract.Refuse(contract.DiskUnknown, "no attached volume has a header of the disk").WithDisk(id)
	}
	if d.Refuse != nil {
		return nil, d.Refuse
	}
	if d.Node != node {
		return nil, contract.Refuse(contract.DiskUnknown, "not assembled on %s but on %q", node, d.Node).WithDisk(id)
	}
	return d, nil
}

func (d *Disk) complete(node string, have map[string]int64) error {
	return attached(node, have, d.Members)
}

func attached(node string, have map[string]int64, ms []contract.Member) error {
	for _, m := range ms {
		if have[m.Volume] == 0 {
			return contract.Refuse(contract.DiskIncomplete, "the volume is not attached to %s", node).WithVolume(m.Volume)
		}
	}
	return nil
}

func (n *Nodes) complete(node string, ms []contract.Member) error {
	return attached(node, n.ec2.AttachedGiB(node), ms)
}

func (n *Nodes) measure(node string, id contract.DiskID) (contract.Measurement, error) {
	d, err := n.on(node, id)
	if err != nil {
		return contract.Measurement{}, err
	}
	return d.measured(node, n.ec2.AttachedGiB(node)), nil
}

func (d *Disk) measured(node string, have map[string]int64) contract.Measurement {
	m := contract.Measurement{
		Disk: d.ID, Name: d.Name, Node: node, Generation: d.Generation, SizeBytes: d.SizeBytes, OverheadBytes: overhead,
		PoolUsedBytes: d.UsedBytes, Filesystem: d.Filesystem, MountPath: d.Mount, BlockBytes: 1 << 20,
	}
	for _, b := range d.Members {
		b.DeviceBytes = have[b.Volume] * contract.GiB
		m.Members = append(m.Members, b)
		m.BackingBytes += b.Bytes
	}
	m.PoolBytes = m.BackingBytes - overhead
	if d.Move != nil {
		mv := *d.Move
		mv.Members = slices.Clone(mv.Members)
		for i, b := range mv.Members {
			mv.Members[i].DeviceBytes = have[b.Volume] * contract.GiB
			mv.PoolBytes += b.Bytes
		}
		mv.PoolBytes -= overhead
		m.Move = &mv
	}
	return m
}

// history is the hours a test has given the disk.
func (n *Nodes) history(node string, in contract.ReadHistoryInput) (contract.ReadHistoryResult, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return contract.ReadHistoryResult{}, err
	}
	return d.hours(in.Since), nil
}

func (d *Disk) hours(since time.Time) contract.ReadHistoryResult {
	out := contract.ReadHistoryResult{Hours: []contract.HistoryHour{}}
	for _, h := range d.Hours {
		if h.Hour.Add(time.Hour).After(since) {
			out.Hours = append(out.Hours, h)
		}
	}
	return out
}

func (n *Nodes) preflight(node string, _ contract.PreflightInput) (contract.PreflightResult, error) {
	res := contract.PreflightResult{Node: node, Kernel: "6.1.0", OK: true, Checks: []contract.Check{{Name: "device-mapper", OK: true}}}
	if c, ok := n.unfit[node]; ok {
		res.OK, res.Checks = false, append(res.Checks, c)
	}
	return res, nil
}

func (n *Nodes) format(node string, in contract.FormatDiskInput) (contract.Measurement, error) {
	have := n.ec2.AttachedGiB(node)
	if d := n.disks[in.Disk]; d == nil {
		d = &Disk{
			ID: in.Disk, Name: in.Name, SizeBytes: in.SizeBytes, Filesystem: in.Filesystem, Mount: in.MountPath,
			Generation: 1, Node: node, Retired: map[uint64][]string{},
		}
		for i, v := range in.Volumes {
			if have[v] == 0 {
				return contract.Measurement{}, contract.Refuse(contract.DiskIncomplete, "not attached").WithVolume(v)
			}
			d.Members = append(d.Members, contract.Member{Volume: v, Index: i, Bytes: have[v] * contract.GiB})
		}
		n.disks[in.Disk] = d
	} else if d.Node == "" { // made by an earlier try: it is brought up
		if err := n.complete(node, d.Members); err != nil {
			return contract.Measurement{}, err
		}
		d.Node = node
	}
	return n.measure(node, in.Disk)
}

func (n *Nodes) assemble(node string, in contract.AssembleDiskInput) (contract.Measurement, error) {
	d := n.disks[in.Disk]
	if d == nil {
		return contract.Measurement{}, contract.Refuse(contract.DiskUnknown, "no header").WithDisk(in.Disk)
	}
	if d.Node != "" && d.Node != node {
		return contract.Measurement{}, fmt.Errorf("BROKEN: disk %s is assembled on %s and shall be on %s too", d.ID, d.Node, node)
	}
	if err := n.complete(node, d.Members); err != nil {
		return contract.Measurement{}, err
	}
	d.Node = node
	if in.MountPath != "" {
		d.Mount = in.MountPath
	}
	return n.measure(node, in.Disk)
}

func (n *Nodes) disassemble(node string, in contract.DisassembleDiskInput) (struct{}, error) {
	if d := n.disks[in.Disk]; d != nil && d.Node == node {
		if d.Busy {
			return struct{}{}, contract.Refuse(contract.DiskBusy, "mounted and open").WithDisk(in.Disk)
		}
		d.Node = ""
	}
	return struct{}{}, nil
}

func (n *Nodes) grow(node string, in contract.GrowBackingInput) (contract.Measurement, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return contract.Measurement{}, err
	}
	have := n.ec2.AttachedGiB(node)[in.Volume] * contract.GiB
	if have < in.Bytes {
		return contract.Measurement{}, fmt.Errorf("volume %s shows %d bytes, want %d", in.Volume, have, in.Bytes)
	}
	ms := d.Members
	if d.Move != nil {
		ms = append(slices.Clip(ms), d.Move.Members...)
	}
	for i := range ms {
		if ms[i].Volume == in.Volume {
			ms[i].Bytes = max(ms[i].Bytes, in.Bytes)
		}
	}
	if d.Move != nil {
		copy(d.Move.Members, ms[len(d.Members):])
		copy(d.Members, ms)
	}
	return n.measure(node, in.Disk)
}

func (n *Nodes) append(node string, in contract.AppendVolumeInput) (contract.Measurement, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return contract.Measurement{}, err
	}
	have := n.ec2.AttachedGiB(node)[in.Volume]
	if have == 0 {
		return contract.Measurement{}, contract.Refuse(contract.DiskIncomplete, "not attached").WithVolume(in.Volume)
	}
	if !slices.ContainsFunc(d.Members, func(m contract.Member) bool { return m.Volume == in.Volume }) {
		d.Members = append(d.Members, contract.Member{Volume: in.Volume, Index: len(d.Members), Bytes: have * contract.GiB})
	}
	return n.measure(node, in.Disk)
}

func (n *Nodes) expand(node string, in contract.ExpandDiskInput) (contract.Measurement, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return contract.Measurement{}, err
	}
	d.SizeBytes = max(d.SizeBytes, in.SizeBytes)
	return n.measure(node, in.Disk)
}
