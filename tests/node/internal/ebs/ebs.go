// Package ebs presents the bench's volumes: a dm-linear of exactly the volume's size over whatever block
// device holds its bytes. Its device-mapper UUID is the volume's identity in the bench, as the NVMe serial
// is on EC2. It drives dmsetup, in the guest of a node or on a host with device-mapper.
package ebs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// UUIDPrefix begins the device-mapper UUID of every volume; the volume id follows.
const UUIDPrefix = "EBSVOL-"

// ErrBusy is returned by Remove when the volume's device is open.
var ErrBusy = errors.New("volume is busy")

// SectorBytes is device-mapper's unit.
const SectorBytes = 512

// DustBlockBytes is the unit of Volume.Blocks.
const DustBlockBytes = 4096

// A device on which everything fails, as large as any volume, shared by those whose reads are to fail. It
// stays once it is there.
const (
	errorName    = "ebs-error"
	errorPath    = "/dev/mapper/" + errorName
	errorSectors = 64 << 40 / SectorBytes
)

// Faults that Volume.Fault may name.
const (
	FaultNone        = "none"
	FaultError       = "error"
	FaultErrorReads  = "error_reads"
	FaultErrorWrites = "error_writes"
	FaultDelay       = "delay"
	FaultDust        = "dust"
)

// Volume is one volume and how it behaves.
type Volume struct {
	ID      string
	Disk    string // block device that holds the bytes
	Bytes   int64
	Fault   string  // "" is FaultNone
	DelayMS int     // FaultDelay: milliseconds added to every read and write
	Blocks  []int64 // FaultDust: blocks of DustBlockBytes whose reads fail until they are written
}

// Name returns the device-mapper name of a volume.
func Name(id string) string { return "ebsvol-" + id }

// Path returns the device node of a volume.
func Path(id string) string { return "/dev/mapper/" + Name(id) }

// Table returns the one device-mapper table line that makes v behave as told.
func Table(v Volume) (string, error) {
	n := v.Bytes / SectorBytes
	if n <= 0 || v.Bytes%SectorBytes != 0 {
		return "", fmt.Errorf("volume %s: size of %d bytes is not a positive multiple of %d", v.ID, v.Bytes, SectorBytes)
	}
	switch v.Fault {
	case "", FaultNone:
		return fmt.Sprintf("0 %d linear %s 0", n, v.Disk), nil
	case FaultError:
		return fmt.Sprintf("0 %d error", n), nil
	case FaultErrorReads: // dm-delay takes reads and writes to different places; dm-flakey cannot on Linux 6.1
		return fmt.Sprintf("0 %d delay %s 0 0 %s 0 0", n, errorPath, v.Disk), nil
	case FaultErrorWrites: // no time up, so always down
		return fmt.Sprintf("0 %d flakey %s 0 0 1 1 error_writes", n, v.Disk), nil
	case FaultDelay:
		return fmt.Sprintf("0 %d delay %s 0 %d", n, v.Disk, v.DelayMS), nil
	case FaultDust:
		return fmt.Sprintf("0 %d dust %s 0 %d", n, v.Disk, DustBlockBytes), nil
	}
	return "", fmt.Errorf("volume %s: unknown fault %q", v.ID, v.Fault)
}

// Create makes the volume's device. A device that exists, left by a try whose answer was lost, is reloaded.
func Create(ctx context.Context, v Volume) error {
	table, err := Table(v)
	if err != nil {
		return err
	}
	if err := prepare(ctx, v); err != nil {
		return err
	}
	if _, err := os.Stat(Path(v.ID)); err == nil {
		return Reload(ctx, v)
	}
	if err := dmsetup(ctx, "create", Name(v.ID), "--uuid", UUIDPrefix+v.ID, "--table", table); err != nil {
		return err
	}
	return messages(ctx, v)
}

// Reload changes a volume's size or behaviour under its users, who keep their open device. I/O in flight
// ends under the old behaviour.
func Reload(ctx context.Context, v Volume) error {
	table, err := Table(v)
	if err != nil {
		return err
	}
	if err := prepare(ctx, v); err != nil {
		return err
	}
	if err := dmsetup(ctx, "load", Name(v.ID), "--table", table); err != nil {
		return err
	}
	// Neither freezes the filesystem nor flushes it: both could hang on a volume that is already broken.
	err = Suspend(ctx, v.ID)
	if e := Resume(ctx, v.ID); e != nil || err != nil {
		return errors.Join(err, e)
	}
	return messages(ctx, v)
}

// Suspend holds back all I/O of a volume once what is in flight has ended; Resume lets it go on.
func Suspend(ctx context.Context, id string) error {
	return dmsetup(ctx, "suspend", "--noflush", "--nolockfs", Name(id))
}

// Resume ends a Suspend.
func Resume(ctx context.Context, id string) error {
	return dmsetup(ctx, "resume", "--noflush", "--nolockfs", Name(id))
}

// Remove takes the volume's device away, or fails with ErrBusy. It is safe to repeat.
func Remove(ctx context.Context, id string) error {
	err := dmsetup(ctx, "remove", Name(id))
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "busy"):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case strings.Contains(err.Error(), "No such device"):
		return nil
	}
	return err
}

// prepare makes what the volume's table refers to.
func prepare(ctx context.Context, v Volume) error {
	if v.Fault != FaultErrorReads {
		return nil
	}
	if _, err := os.Stat(errorPath); err == nil {
		return nil
	}
	return dmsetup(ctx, "create", errorName, "--table", fmt.Sprintf("0 %d error", int64(errorSectors)))
}

// messages tells the target what its table cannot say.
func messages(ctx context.Context, v Volume) error {
	if v.Fault != FaultDust {
		return nil
	}
	for _, b := range v.Blocks {
		if err := dmsetup(ctx, "message", Name(v.ID), "0", "addbadblock", fmt.Sprint(b)); err != nil {
			return err
		}
	}
	return dmsetup(ctx, "message", Name(v.ID), "0", "enable")
}

func dmsetup(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "dmsetup", args...)
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1", "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("dmsetup %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
