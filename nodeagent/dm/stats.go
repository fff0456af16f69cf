package dm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Counters are what device-mapper's I/O statistics (dm-stats, in every kernel that has device-mapper) tell
// of one area of a device since the counting began. Discards are writes.
type Counters struct {
	Reads, Writes uint64 // that have ended
	Written       uint64 // sectors, of the writes
	InFlight      bool   // some I/O, reading or writing, has begun and not ended
}

// CountIO begins to count a device's I/O, area by area of areaSectors each; the last may be shorter.
// The kernel lets the I/O that is inside the device end first, and holds what comes meanwhile, as a swap of
// tables does. It counts across swaps, until StopCounting or the device's end. The answer names the count
// for the other calls. Each area costs the kernel about 120 bytes and 96 more for each processor.
func (c *Client) CountIO(name string, areaSectors uint64, program string) (id uint64, err error) {
	text, err := c.Message(name, 0, "@stats_create - %d %s", areaSectors, program)
	if err != nil {
		return 0, err
	}
	if id, err = strconv.ParseUint(strings.TrimSpace(text), 10, 64); err != nil {
		return 0, fail(opMessage, name, unknown("@stats_create", text))
	}
	return id, nil
}

// CountersOf reads n areas of a count, from the first on. At the device's end there are fewer.
func (c *Client) CountersOf(name string, id uint64, first, n int) ([]Counters, error) {
	const atOnce = 512 // lines, so that an answer is some tens of KiB
	var out []Counters
	for len(out) < n {
		want := min(atOnce, n-len(out))
		text, err := c.Message(name, 0, "@stats_print %d %d %d", id, first+len(out), want)
		if err != nil {
			return nil, err
		}
		got, err := parseCounters(text)
		if err != nil {
			return nil, fail(opMessage, name, err)
		}
		out = append(out, got...)
		if len(got) < want {
			break
		}
	}
	return out, nil
}

// parseCounters reads the lines of @stats_print: start+length, then the thirteen counters of
// Documentation/admin-guide/device-mapper/statistics.rst, of which the first is the reads that have ended, the
// fifth the writes, the seventh their sectors and the ninth what is in flight.
func parseCounters(text string) ([]Counters, error) {
	var out []Counters
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 {
			return nil, unknown("@stats_print", line)
		}
		reads, err := parse(f[1], nil)
		writes, err := parse(f[5], err)
		sectors, err := parse(f[7], err)
		inFlight, err := parse(f[9], err)
		if err != nil {
			return nil, unknown("@stats_print", line)
		}
		out = append(out, Counters{Reads: reads, Writes: writes, Written: sectors, InFlight: inFlight != 0})
	}
	return out, nil
}

// StopCounting ends all counts that a program has on a device. It is safe to repeat.
func (c *Client) StopCounting(name, program string) error {
	text, err := c.Message(name, 0, "@stats_list %s", program)
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(text) {
		id, _, _ := strings.Cut(line, ":")
		if _, err := strconv.ParseUint(id, 10, 64); err != nil {
			errs = append(errs, fail(opMessage, name, unknown("@stats_list", line)))
			continue
		}
		if _, err := c.Message(name, 0, "@stats_delete %s", id); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ReadElsewhere maps writes and flushes onto dev and reads onto another device of the same length.
func ReadElsewhere(length uint64, dev, reads Dev) Target {
	return Target{0, length, "delay", fmt.Sprintf("%s 0 0 %s 0 0", reads, dev)}
}
