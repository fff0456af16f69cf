package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// The check functions refuse an input before anything on the node is touched.
// Inputs come from a task queue, which more than our own workflows may write.

func checkFormat(in contract.FormatDiskInput) error {
	errs := []error{
		checkSize(in.Disk, in.SizeBytes),
		in.Filesystem.Validate(),
		checkVolumes(in.Volumes, 1),
		checkMount(in.MountPath),
	}
	if in.Name != "" {
		errs = append(errs, contract.ValidateName(in.Name))
	}
	return errors.Join(errs...)
}

func checkAssemble(in contract.AssembleDiskInput) error {
	return errors.Join(in.Disk.Validate(), checkVolumes(in.Volumes, 0), checkMount(in.MountPath))
}

func checkGrowBacking(in contract.GrowBackingInput) error {
	errs := []error{in.Disk.Validate(), contract.ValidateVolumeID(in.Volume)}
	if in.Bytes <= 0 {
		errs = append(errs, fmt.Errorf("volume size %d bytes: want more than 0", in.Bytes))
	}
	return errors.Join(errs...)
}

func checkAppend(in contract.AppendVolumeInput) error {
	return errors.Join(in.Disk.Validate(), contract.ValidateVolumeID(in.Volume))
}

func checkPrepareMove(in contract.PrepareMoveInput) error {
	errs := []error{in.Disk.Validate(), contract.ValidateToken(in.Move), checkVolumes(in.Volumes, 1), checkRate(in.ThrottleMiBs)}
	if in.Generation == 0 {
		errs = append(errs, errors.New("generation 0: want the active one + 1"))
	}
	return errors.Join(errs...)
}

func checkMove(in contract.MoveInput) error {
	return errors.Join(in.Disk.Validate(), contract.ValidateToken(in.Move))
}

func checkThrottle(in contract.ThrottleMoveInput) error {
	return errors.Join(in.Disk.Validate(), contract.ValidateToken(in.Move), checkRate(in.MiBs))
}

// Bounds of what one call may ask for. An instance attaches 128 volumes at most.
const (
	maxSurvey  = 500
	maxHeaders = 500
	// maxHeadroomTime is the longest fill a disk's headroom can be asked to last.
	maxHeadroomTime = 30 * 24 * time.Hour
)

func checkSurvey(in contract.SurveyInput) error {
	var errs []error
	if n := len(in.Disks); n == 0 || n > maxSurvey {
		errs = append(errs, fmt.Errorf("%d disks: want 1 to %d", n, maxSurvey))
		return errors.Join(errs...)
	}
	seen := make(map[contract.DiskID]bool, len(in.Disks))
	for i, d := range in.Disks {
		err := d.Disk.Validate()
		switch {
		case err != nil:
		case seen[d.Disk]:
			err = fmt.Errorf("disk %s: named twice", d.Disk)
		}
		seen[d.Disk] = true
		if err != nil {
			errs = append(errs, fmt.Errorf("disks[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// checkSurveyed refuses what is wanted of one disk. That is told of this disk alone:
// one policy's mistake must not keep a node's other disks from being looked at.
func checkSurveyed(d contract.SurveyDisk) error {
	if d.LookBack < 0 {
		return fmt.Errorf("lookBack %s: want 0 or more", d.LookBack)
	}
	if d.Guide != nil {
		if err := checkGuide(*d.Guide); err != nil {
			return fmt.Errorf("guide: %w", err)
		}
	}
	return nil
}

func checkGuide(g contract.Guide) error {
	errs := []error{g.Settings.Validate()}
	if g.HeadroomBytes < 0 || g.HeadroomBytes > contract.MaxDiskBytes || g.ExtraBytes < 0 || g.ExtraBytes > contract.MaxDiskBytes {
		errs = append(errs, errors.New("headroomBytes, extraBytes: want 0 bytes to 64 TiB"))
	}
	if !(g.HeadroomPercent >= 0 && g.HeadroomPercent <= 10) { // not a number is neither
		errs = append(errs, errors.New("headroomPercent: want 0 to 10 (0.1 is 10%)"))
	}
	if g.HeadroomTime < 0 || g.HeadroomTime > maxHeadroomTime {
		errs = append(errs, fmt.Errorf("headroomTimeNanos: want 0 to %s", maxHeadroomTime))
	}
	if g.ExtraBytes > 0 && g.ExtraUntil.IsZero() {
		errs = append(errs, errors.New("extraBytes: want extraUntil too"))
	}
	if g.CeilingGiB < 0 || g.CeilingGiB > contract.MaxDiskBytes/contract.GiB {
		errs = append(errs, errors.New("ceilingGiB: want 1 to 65536 (or 0 for all that the disk can use)"))
	}
	return errors.Join(errs...)
}

func checkHeaders(in contract.ReadHeadersInput) error {
	if n := len(in.Volumes); n > maxHeaders {
		return fmt.Errorf("%d volumes: want at most %d", n, maxHeaders)
	}
	return checkVolumes(in.Volumes, 1)
}

func checkRate(mibs int64) error {
	if mibs < 0 {
		return fmt.Errorf("rate %d MiB/s: want 0 (unlimited) or more", mibs)
	}
	return nil
}

func checkSize(id contract.DiskID, bytes int64) error {
	return contract.ExpandInput{Disk: id, SizeBytes: bytes}.Validate()
}

func checkMount(path string) error {
	if path == "" {
		return nil
	}
	return contract.ValidateMountPath(path)
}

// checkVolumes wants at least least volumes, each named once.
func checkVolumes(ids []string, least int) error {
	var errs []error
	if len(ids) < least {
		errs = append(errs, fmt.Errorf("%d volumes: want at least %d", len(ids), least))
	}
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if err := contract.ValidateVolumeID(id); err != nil {
			errs = append(errs, err)
			continue
		}
		if seen[id] {
			errs = append(errs, fmt.Errorf("volume %s: named twice", id))
		}
		seen[id] = true
	}
	return errors.Join(errs...)
}
