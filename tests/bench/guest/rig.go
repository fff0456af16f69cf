package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/node"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// rig is what an experiment works with. What it makes is taken down by close.
type rig struct {
	*host
	p     wire.Params
	group string
	m     *disk.Manager
	dm    *dm.Client
	vols  []string // files of the host
	cloud []string
	disks []contract.DiskID
	moves int
	made  int // disks
}

// size chooses by the length of the run.
func size[T any](r *rig, quick, full T) T {
	if r.p.Quick {
		return quick
	}
	return full
}

// say reports a row of this experiment's group.
func (r *rig) say(key, name string, value float64, unit, note string, args ...any) error {
	return r.row(wire.Row{Group: r.group, Key: key, Name: name, Value: value, Unit: unit, Note: fmt.Sprintf(note, args...)})
}

// volume attaches a new volume, a file of the host whose bytes are all written,
// so that no experiment pays for their allocation. It answers from the host's
// memory: what is timed on it is the node's processor.
func (r *rig) volume(bytes int64) (string, error) {
	id := fmt.Sprintf("vol-%s%d", r.group, len(r.vols))
	r.vols = append(r.vols, id)
	return id, r.ask(wire.Order{Do: wire.Attach, Volume: id, Bytes: bytes})
}

// format makes a disk; it is mounted when mount is true.
func (r *rig) format(ctx context.Context, fs contract.Filesystem, bytes int64, vol string, mount bool) (contract.DiskID, string, error) {
	r.made++
	id := contract.DiskID(fmt.Sprintf("d-%017x", r.made))
	path := ""
	if mount {
		path = filepath.Join("/tmp", string(id))
	}
	r.disks = append(r.disks, id)
	_, err := r.m.Format(ctx, contract.FormatDiskInput{Disk: id, Name: "bench", SizeBytes: bytes, Volumes: []string{vol}, Filesystem: fs, MountPath: path})
	return id, path, err
}

// close takes everything down that the experiment made.
func (r *rig) close(ctx context.Context) error {
	var errs []error
	for _, d := range r.disks {
		errs = append(errs, r.m.Disassemble(ctx, d))
	}
	for _, v := range r.cloud {
		errs = append(errs, r.dm.Remove("ebsvol-"+v))
	}
	for _, v := range r.vols {
		errs = append(errs, r.ask(wire.Order{Do: wire.Detach, Volume: v}))
	}
	return errors.Join(errs...)
}

// blank makes a volume look new: zeros wherever Ebb looks for somebody's data.
func blank(vol string) error {
	f, err := os.OpenFile(node.VolumePath(vol), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	end, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	zero := make([]byte, 4*mib)
	for _, off := range []int64{0, end - 4*mib} {
		if _, err := f.WriteAt(zero, off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// evacuation is a finished copy.
type evacuation struct {
	contract.EvacuateResult
	move    contract.MoveInput
	seconds float64 // from the call to both legs in sync, but for the comparison
	compare float64 // seconds of the comparison before there is a mirror
	region  int64
}

// evacuate moves the disk to a volume until both are in sync, measures that,
// and leaves the mirror to be called off: the disk stays where it is then, and
// the next run starts from the same place.
func (r *rig) evacuate(ctx context.Context, d contract.DiskID, to string) (out evacuation, err error) {
	if err := blank(to); err != nil {
		return out, err
	}
	m, err := r.m.Measure(ctx, d)
	if err != nil {
		return out, err
	}
	r.moves++
	out.move = contract.MoveInput{Disk: d, Move: fmt.Sprintf("bench-%d", r.moves)}
	p, err := r.m.PrepareMove(ctx, contract.PrepareMoveInput{Disk: d, Move: out.move.Move, Generation: m.Generation + 1, Volumes: []string{to}})
	if err != nil {
		return out, err
	}
	out.region = p.Move.RegionBytes
	dropCaches()
	start := time.Now()
	last := start
	out.EvacuateResult, err = r.m.Evacuate(ctx, out.move, func(p contract.CopyProgress) {
		if p.Phase == contract.PhaseVerify {
			out.compare += time.Since(last).Seconds()
		}
		last = time.Now()
	})
	out.seconds = time.Since(start).Seconds() - out.compare
	return out, err
}

func (r *rig) callOff(ctx context.Context, e evacuation) error {
	_, err := r.m.AbortMove(ctx, e.move)
	return err
}

// dropCaches writes everything back and empties the page cache of the node.
func dropCaches() {
	unix.Sync()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o644) // without it reads are only faster
}

// shell runs a command of the node; its error carries what it said.
func shell(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out), nil
}

// timed runs a command and tells how long it took, in seconds.
func timed(ctx context.Context, name string, args ...string) (float64, error) {
	dropCaches()
	start := time.Now()
	_, err := shell(ctx, name, args...)
	return time.Since(start).Seconds(), err
}

// dd copies as much as a move did, between the same volumes, and tells how long
// it took, in seconds.
func (r *rig) dd(ctx context.Context, from, to string, e evacuation) (float64, error) {
	return timed(ctx, "dd", "if="+node.VolumePath(from), "of="+node.VolumePath(to), "bs=1M", fmt.Sprintf("count=%d", e.CopiedBytes/mib),
		"skip=16", "seek=16", "oflag=direct", "conv=fsync,notrunc", "status=none")
}
