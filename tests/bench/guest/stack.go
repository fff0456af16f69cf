package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

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
	vol, _, err := r.cloudVolumes(ctx)
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
	first, err := fio(ctx, []string{"--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1"}, stack, raw)
	if err != nil {
		return err
	}
	if err := r.say("", "first sequential write: stack vs raw", first[0]/first[1], "x", "allocates; raw %.0f MiB/s", first[1]/float64(mib)); err != nil {
		return err
	}
	var turns []target
	for range size(r, 4, 16) {
		turns = append(turns, stack, raw)
	}
	logs := map[string]float64{}
	count := map[string]float64{}
	for _, l := range loads {
		rates, err := fio(ctx, append([]string{"--time_based", "--runtime=1"}, l.args...), turns...)
		if err != nil {
			return err
		}
		var stacks, raws, ratios []float64
		for i := 0; i < len(rates); i += 2 {
			stacks, raws, ratios = append(stacks, rates[i]), append(raws, rates[i+1]), append(ratios, rates[i]/rates[i+1])
		}
		per := float64(mib)
		if l.unit == "IOPS" {
			per = float64(4 * kib)
		}
		ratio := wire.Median(ratios) // of neighbours in time
		added := ""
		if l.unit == "IOPS" { // how long the stack holds a request up, which is the same on any volume
			added = fmt.Sprintf("; %+.0f us a request", (1/wire.Median(stacks)-1/wire.Median(raws))*4*float64(kib)*1e6)
		}
		logs[l.kind] += math.Log(ratio)
		count[l.kind]++
		if err := r.say("", l.name+": stack vs raw", ratio, "x", "raw %.0f %s, stack %.0f; rounds %.2f to %.2f%s", wire.Median(raws)/per, l.unit, wire.Median(stacks)/per, slices.Min(ratios), slices.Max(ratios), added); err != nil {
			return err
		}
	}
	// Each of these writes begins a block, which the pool zeroes first.
	begin, err := fio(ctx, []string{"--rw=write:124k", "--bs=4k", "--iodepth=1", "--fsync=1", fmt.Sprintf("--io_size=%d", area/32)}, fresh, raw)
	if err != nil {
		return err
	}
	if err := r.say("", "first 4k write of a block + fsync: stack vs raw", begin[0]/begin[1], "x", "raw %.0f IOPS, stack %.0f", begin[1]/float64(4*kib), begin[0]/float64(4*kib)); err != nil {
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

// fio runs one job on the targets in turn and gives its rates in bytes per
// second.
func fio(ctx context.Context, job []string, targets ...target) ([]float64, error) {
	args := append([]string{
		"--output-format=json", "--name=global", "--direct=1", "--ioengine=libaio", "--randrepeat=1", "--allow_mounted_write=0", "--thread",
	}, job...)
	for i, t := range targets {
		args = append(args, fmt.Sprintf("--name=turn%d", i), "--stonewall", "--filename="+t.path, fmt.Sprintf("--offset=%d", t.offset), fmt.Sprintf("--size=%d", t.size))
	}
	out, err := shell(ctx, "fio", args...)
	if err != nil {
		return nil, err
	}
	var result struct {
		Jobs []struct {
			Read, Write struct {
				IOBytes float64 `json:"io_bytes"`
				Runtime float64 `json:"runtime"` // ms
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.Jobs) != len(targets) {
		return nil, fmt.Errorf("output of fio: %w: %.200s", err, out)
	}
	var rates []float64
	for _, j := range result.Jobs {
		rates = append(rates, (j.Read.IOBytes+j.Write.IOBytes)/max(1, j.Read.Runtime+j.Write.Runtime)*1000)
	}
	return rates, nil
}
