package agent

import (
	"errors"
	"fmt"

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
