package dm

import (
	"fmt"
	"strconv"
	"strings"
)

// Target is one line of a table or of a status, in 512-byte sectors.
type Target struct {
	Start, Length uint64
	Type          string
	Params        string // parameters, or the status line
}

// String returns the line as dmsetup prints it.
func (t Target) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %d %s %s", t.Start, t.Length, t.Type, t.Params))
}

// Linear maps sectors onto dev from offset on.
func Linear(start, length uint64, dev Dev, offset uint64) Target {
	return Target{start, length, "linear", fmt.Sprintf("%s %d", dev, offset)}
}

// Leg is one device of a stripe set and the first sector used on it.
type Leg struct {
	Dev    Dev
	Offset uint64
}

// Striped spreads sectors over legs in turns of chunk sectors. Length must be a multiple of chunk times
// the number of legs.
func Striped(start, length, chunk uint64, legs []Leg) Target {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d", len(legs), chunk)
	for _, l := range legs {
		fmt.Fprintf(&b, " %s %d", l.Dev, l.Offset)
	}
	return Target{start, length, "striped", b.String()}
}

// ErrorTarget fails all I/O.
func ErrorTarget(start, length uint64) Target { return Target{start, length, "error", ""} }

// ThinPool makes a pool of length sectors. lowWaterBlocks is the number of free blocks, of blockSectors
// each, below which the pool has an event. Without ErrorIfNoSpace a full pool makes writes wait.
func ThinPool(length uint64, meta, data Dev, blockSectors, lowWaterBlocks uint64, features ...string) Target {
	p := fmt.Sprintf("%s %s %d %d %d", meta, data, blockSectors, lowWaterBlocks, len(features))
	return Target{0, length, "thin-pool", strings.Join(append([]string{p}, features...), " ")}
}

// ErrorIfNoSpace is the pool feature that fails writes for which there is no room.
const ErrorIfNoSpace = "error_if_no_space"

// WithFeature is a pool's table, as the kernel prints it, with one more feature.
func WithFeature(pool Target, feature string) Target {
	f := strings.Fields(pool.Params) // metadata, data, block, low water, number of features, features
	if len(f) < 5 {
		return pool
	}
	n, err := strconv.Atoi(f[4])
	if err != nil {
		return pool
	}
	f[4] = strconv.Itoa(n + 1)
	pool.Params = strings.Join(append(f, feature), " ")
	return pool
}

// WithLowWater is a pool's table, as the kernel prints it, with another low-water
// mark, in blocks.
func WithLowWater(pool Target, blocks uint64) Target {
	f := strings.Fields(pool.Params)
	if len(f) < 5 {
		return pool
	}
	f[3] = strconv.FormatUint(blocks, 10)
	pool.Params = strings.Join(f, " ")
	return pool
}

// LowWater reads the low-water mark, in blocks, from a pool's table.
func LowWater(pool Target) (blocks uint64, ok bool) {
	f := strings.Fields(pool.Params)
	if pool.Type != "thin-pool" || len(f) < 5 {
		return 0, false
	}
	blocks, err := strconv.ParseUint(f[3], 10, 64)
	return blocks, err == nil
}

// Thin maps the thin device id of a pool. Reads of what it does not map come from origin, or are zeros
// when origin is nil.
func Thin(length uint64, pool Dev, id uint32, origin *Dev) Target {
	p := fmt.Sprintf("%s %d", pool, id)
	if origin != nil {
		p += " " + origin.String()
	}
	return Target{0, length, "thin", p}
}

// Mirror writes to all legs and reads from the first, with a dirty log on the device log. What the log
// does not say is in sync is copied from the first leg in regions of regionSectors. A failed write is held
// until the table is swapped: do that with NoFlush.
func Mirror(length uint64, log Dev, regionSectors uint64, legs ...Dev) Target {
	var b strings.Builder
	fmt.Fprintf(&b, "disk 2 %s %d %d", log, regionSectors, len(legs))
	for _, l := range legs {
		fmt.Fprintf(&b, " %s 0", l)
	}
	b.WriteString(" 1 handle_errors")
	return Target{0, length, "mirror", b.String()}
}
