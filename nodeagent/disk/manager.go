package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// Options of a Manager. All but OnStep are required.
type Options struct {
	Node    string // EC2 instance id, reported in measurements
	DM      *dm.Client
	Locator volume.Locator
	Logger  *slog.Logger
	// OnStep, when set, is called at every step boundary of a changing
	// operation; an error ends the operation there, as a crash would. Tests use
	// it to stop the world at each boundary.
	OnStep func(step string) error
}

// Manager manages the disks of one node. Its methods may be called from several
// goroutines; those on one disk take turns.
type Manager struct {
	Options
	mu      sync.Mutex
	disks   map[contract.DiskID]*handle
	percent map[contract.DiskID]float64 // by disk with a throttled copy: kcopyd's share of time
	hurried int                         // swaps under way: no copy is throttled meanwhile
	guides  map[contract.DiskID]contract.Guide
	wake    func() // ends the watch's wait; nil: there is no watch

	owners  owners
	loading sync.RWMutex // see load
	copyJob string       // kcopyd's job size for others than us, in KiB

	precopies bool // the kernel has what a pre-copy needs
}

// handle is one disk's lock and what is remembered between calls. Nothing in it
// is needed after a restart.
//
// A swap of the top device's table waits for the I/O that is inside it. That I/O
// may itself wait for a full pool to grow, so the lock is given up during a swap
// (swapping says so), and while the filesystem is mounted, unmounted or grown, which
// writes (mounting): operations that change a disk's backings or tables wait until
// it is over, growing and measuring do not (see lockLive).
type handle struct {
	mu       mutex
	over     sync.Cond // of mu: it is not lent any more
	swapping bool
	mounting bool
	view     *view                        // as last read; nil: not assembled here
	failure  map[string]*contract.Refusal // by move: why it was dropped
	untold   []Event                      // failures that Watch has not reported yet
	pauses   map[string][]float64         // by move: swap pauses in milliseconds
	resumed  map[string]float64           // by move: how far its copy was when it was assembled
	rate     rate
	hour     hourly
	pressed  map[uint64]time.Time // by generation: when its pool was last reported
	marked   time.Time            // when the pool's low-water mark was last changed
	trimAt   int64                // where the next Reclaim begins

	growing atomic.Int32 // growths that wait for mu
	// reclaiming is held by the one Reclaim there is, and while the disk is taken
	// down; trims by each step of a trim, and for writing by a move that begins: a
	// discard must not pass the copy.
	reclaiming  mutex
	trims       sync.RWMutex
	ballast     ballast
	precopying  mutex                              // held by the one pre-copy there is
	stopPrecopy atomic.Pointer[context.CancelFunc] // ends it; nil: there is none
	brought     atomic.Int64                       // bytes, of its first pass
	tobring     atomic.Int64                       // bytes; 0: there is no pre-copy
	carried     *carried                           // what it has proven; nil: nothing
	partial     *carried                           // what one that was interrupted has; nil: nothing
	closing     atomic.Int32                       // takes the disk down: no new ballast, no trim
	untidy      atomic.Bool                        // a dead agent's devices are here, and not in order yet
	down        bool                               // it was taken down here
}

// Targets are the device-mapper targets a node needs.
var Targets = []string{"linear", "thin-pool", "thin", "mirror"}

// NewManager prepares the kernel: a full pool must make writes wait for ever,
// never fail (the module's default fails them after a minute).
func NewManager(o Options) (*Manager, error) {
	const param = "/sys/module/dm_thin_pool/parameters/no_space_timeout"
	if err := os.WriteFile(param, []byte("0"), 0o644); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, contract.Refuse(contract.NodeUnsupported, "cannot make full pools wait: %v", err).
				WithNext("run the agent privileged, or boot with dm_thin_pool.no_space_timeout=0")
		}
		return nil, contract.Refuse(contract.NodeUnsupported, "the dm-thin-pool module is not loaded").
			WithNext("run ebb preflight")
	}
	m := &Manager{Options: o, disks: map[contract.DiskID]*handle{}, percent: map[contract.DiskID]float64{}, guides: map[contract.DiskID]contract.Guide{}, copyJob: findCopyJob()}
	// Reads that must not reach the new backing (see begin) need a target that not every kernel has.
	// Without it the mirror copies everything.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.DM.EnsureTargets(ctx, "delay"); err == nil {
		m.precopies = true
	} else {
		m.Logger.Info("moves are copied by the mirror alone", "reason", err)
	}
	m.applyThrottle() // a dead agent's setting says nothing about the moves there are now
	m.restoreCopyJob()
	return m, nil
}

// handle finds or makes a disk's handle.
func (m *Manager) handle(d contract.DiskID) *handle {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.disks[d]
	if h == nil {
		h = &handle{mu: newMutex(), reclaiming: newMutex(), precopying: newMutex(), pressed: map[uint64]time.Time{}, failure: map[string]*contract.Refusal{}, pauses: map[string][]float64{}, resumed: map[string]float64{}}
		h.over.L = h.mu
		m.disks[d] = h
	}
	return h
}

// Disks lists the disks assembled here, by id.
func (m *Manager) Disks() []contract.DiskID {
	list, err := m.DM.List()
	if err != nil {
		m.Logger.Error("list devices", "error", err)
		return nil
	}
	var out []contract.DiskID
	for _, i := range list {
		d := contract.DiskID(strings.TrimPrefix(i.Name, "ebb-"))
		if strings.HasPrefix(i.Name, "ebb-") && d.Validate() == nil && i.UUID == uuidOf(i.Name) {
			out = append(out, d)
		}
	}
	slices.Sort(out)
	return out
}

// errStopped says that OnStep ended an operation: nothing is cleaned up then, as
// after a crash.
var errStopped = errors.New("stopped")

// step marks a boundary between two steps.
func (m *Manager) step(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.OnStep != nil {
		if err := m.OnStep(name); err != nil {
			return fmt.Errorf("%w at %s: %w", errStopped, name, err)
		}
	}
	return nil
}
