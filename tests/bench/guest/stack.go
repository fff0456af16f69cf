package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/node"
)

// load is one fio job; the result is its rate.
type load struct {
	name string
	kind string // of the summary: seq, rand4k, fsync
	unit string
	args []string
}

var loads = []load{
	{"sequential read", "seq", "MiB/s", []string{"--rw=read", "--bs=1M", "--iodepth=4"}},
	{"sequential write", "seq", "MiB/s", []string{"--rw=write", "--bs=1M", "--iodepth=4"}},
	{"random 4k read", "rand4k", "IOPS", []string{"--rw=randread", "--bs=4k", "--iodepth=8"}},
	{"random 4k write", "rand4k", "IOPS", []string{"--rw=randwrite", "--bs=4k", "--iodepth=8"}},
	{"4k write + fsync", "fsync", "IOPS", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"}},
}

// stackExperiment compares a disk whose blocks are all there already, the steady
// state, with the bare volume under it, and tells what the first write of a
// block costs.
func stackExperiment(ctx context.Context, r *rig) error {
	area := size(r, 96*mib, 160*mib)
	vol, err := r.volume(5 * area)
	if err != nil {
		return err
	}
	d, _, err := r.format(ctx, contract.XFS, 16*gib, vol, false)
	if err != nil {
		return err
	}
	// The pool hands blocks out from its beginning; the bare volume is measured
	// on a part that the pool does not reach.
	stack := target{"/dev/mapper/ebb-" + string(d), 0, area}
	raw := target{node.VolumePath(vol), 4 * area, area}
	fresh := target{stack.path, 2 * area, area}
	first := map[string]float64{}
	for name, t := range map[string]target{"stack": stack, "raw": raw} {
		if first[name], err = t.fio(ctx, "--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1"); err != nil {
			return err
		}
	}
	if err := r.say("", "first sequential write: stack vs raw", first["stack"]/first["raw"], "x", "allocates; raw %.0f MiB/s", first["raw"]/float64(mib)); err != nil {
		return err
	}
	runtime := fmt.Sprintf("--runtime=%d", size(r, 1, 3))
	logs := map[string]float64{}
	count := map[string]float64{}
	for _, l := range loads {
		var stacks, raws, ratios []float64
		for range size(r, 2, 3) {
			args := append([]string{"--time_based", runtime}, l.args...)
			a, err := stack.fio(ctx, args...)
			if err != nil {
				return err
			}
			b, err := raw.fio(ctx, args...)
			if err != nil {
				return err
			}
			stacks, raws, ratios = append(stacks, a), append(raws, b), append(ratios, a/b)
		}
		per := float64(mib)
		if l.unit == "IOPS" {
			per = float64(4 * kib)
		}
		ratio := wire.Median(stacks) / wire.Median(raws)
		added := ""
		if l.unit == "IOPS" { // how long the stack holds a request up, which is the same on any volume
			added = fmt.Sprintf("; %+.0f us a request", (1/wire.Median(stacks)-1/wire.Median(raws))*4*float64(kib)*1e6)
		}
		logs[l.kind] += math.Log(ratio)
		count[l.kind]++
		if err := r.say("", l.name+": stack vs raw", ratio, "x", "raw %.0f %s, stack %.0f; rounds %.2f%s", wire.Median(raws)/per, l.unit, wire.Median(stacks)/per, ratios, added); err != nil {
			return err
		}
	}
	// Each of these writes begins a block, which the pool zeroes first.
	begin := []string{"--rw=write:124k", "--bs=4k", "--iodepth=1", "--fsync=1", fmt.Sprintf("--io_size=%d", area/32)}
	a, err := fresh.fio(ctx, begin...)
	if err != nil {
		return err
	}
	b, err := raw.fio(ctx, begin...)
	if err != nil {
		return err
	}
	if err := r.say("", "first 4k write of a block + fsync: stack vs raw", a/b, "x", "raw %.0f IOPS, stack %.0f", b/float64(4*kib), a/float64(4*kib)); err != nil {
		return err
	}
	for _, k := range []string{"seq", "rand4k", "fsync"} {
		if err := r.say("stack_vs_raw_"+k, "stack vs raw: "+k, math.Exp(logs[k]/count[k]), "x", "geometric mean"); err != nil {
			return err
		}
	}
	return nil
}

// target is a part of a device.
type target struct {
	path         string
	offset, size int64
}

// fio runs a job and gives its rate in bytes per second.
func (t target) fio(ctx context.Context, args ...string) (float64, error) {
	dropCaches()
	out, err := shell(ctx, "fio", append([]string{
		"--name=bench", "--filename=" + t.path, "--direct=1", "--ioengine=libaio", "--output-format=json", "--randrepeat=1",
		fmt.Sprintf("--offset=%d", t.offset), fmt.Sprintf("--size=%d", t.size), "--allow_mounted_write=0", "--thread",
	}, args...)...)
	if err != nil {
		return 0, err
	}
	var result struct {
		Jobs []struct {
			Read, Write struct {
				IOBytes float64 `json:"io_bytes"`
				Runtime float64 `json:"runtime"` // ms
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.Jobs) != 1 {
		return 0, fmt.Errorf("output of fio: %w: %.200s", err, out)
	}
	j := result.Jobs[0]
	return (j.Read.IOBytes + j.Write.IOBytes) / max(1, j.Read.Runtime+j.Write.Runtime) * 1000, nil
}
