package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/lab"
)

// check holds the disk to everything that was promised, when its operation has
// ended with a result.
func (s *stage) check(ctx context.Context, sc scenario, r contract.Result) error {
	if err := s.writer.stop(ctx); err != nil {
		return err
	}
	v, err := s.settled(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.checkBacking(sc, r, v), s.checkSnapshots(), s.checkDevices(ctx, v), s.writer.check(ctx, s.node), s.checkFilesystem(ctx))
}

// settled waits until EC2 has nothing of the disk but its active volumes: what
// was retired is deleted after its grace period of a second.
func (s *stage) settled(ctx context.Context) (view, error) {
	var v view
	err := s.w.lab.Until(ctx, 90*time.Second, "only active volumes are left", func(ctx context.Context) error {
		for _, vol := range s.volumes() {
			if vol.Tags[contract.TagDisk] != string(s.disk) || vol.Tags[contract.TagRole] != string(contract.RoleActive) || vol.State != ec2sim.StateInUse {
				return fmt.Errorf("volume %s is %s, %v", vol.ID, vol.State, vol.Tags)
			}
		}
		var err error
		if v, err = s.show(ctx); err != nil {
			return err
		}
		if v.Measurement == nil {
			return fmt.Errorf("the disk was not measured: %s", v.Unmeasured)
		}
		return nil
	})
	return v, err
}

// volumes is what EC2 truly has. There is no other disk: a volume that is not
// tagged with this one is an orphan.
func (s *stage) volumes() []ec2sim.Volume { return s.w.lab.EC2.Volumes() }

// checkBacking compares headers, tags and attachments: one generation, all of
// it where the disk is, of the size that the outcome says.
func (s *stage) checkBacking(sc scenario, r contract.Result, v view) error {
	var errs []error
	m := *v.Measurement
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.Node != lab.NodeID(s.node) || v.Node != lab.NodeID(s.node) {
		complain("the disk is on %s, EC2 says %s; want %s", m.Node, v.Node, lab.NodeID(s.node))
	}
	if m.Move != nil {
		complain("a move is left over: %+v", *m.Move)
	}
	var members, tagged []string
	for _, b := range m.Members {
		members = append(members, b.Volume)
		if b.Bytes != b.DeviceBytes {
			complain("volume %s has %d bytes, the backing uses %d", b.Volume, b.DeviceBytes, b.Bytes)
		}
	}
	for _, vol := range s.volumes() {
		tagged = append(tagged, vol.ID)
		if g := vol.Tags[contract.TagGeneration]; g != fmt.Sprint(m.Generation) {
			complain("volume %s is tagged generation %s, the headers say %d", vol.ID, g, m.Generation)
		}
		if a := vol.Attachment; a == nil || a.InstanceID != lab.NodeID(s.node) || a.State != ec2sim.StateAttached {
			complain("volume %s is attached %+v, want to %s", vol.ID, a, lab.NodeID(s.node))
		}
	}
	slices.Sort(members)
	slices.Sort(tagged)
	if !slices.Equal(members, tagged) {
		complain("the headers name %v, EC2 has %v", members, tagged)
	}
	was := s.before
	switch {
	case r.Outcome != contract.Done: // nothing changed
		if m.Generation < was.Generation || m.BackingBytes != was.BackingBytes {
			complain("generation %d of %d bytes is now %d of %d", was.Generation, was.BackingBytes, m.Generation, m.BackingBytes)
		}
	case sc.op.shrinks():
		if m.Generation != was.Generation+1 || m.BackingBytes != contract.GiB {
			complain("generation %d of %d bytes is now %d of %d", was.Generation, was.BackingBytes, m.Generation, m.BackingBytes)
		}
	case sc.op.byItself():
		if m.Generation != was.Generation || m.BackingBytes < 2*contract.GiB || m.BackingBytes > 3*contract.GiB {
			complain("generation %d of %d bytes is now %d of %d", was.Generation, was.BackingBytes, m.Generation, m.BackingBytes)
		}
	default:
		if m.Generation != was.Generation || m.BackingBytes != 2*contract.GiB {
			complain("generation %d of %d bytes is now %d of %d", was.Generation, was.BackingBytes, m.Generation, m.BackingBytes)
		}
	}
	return errors.Join(errs...)
}

// checkSnapshots: one of each volume before a move, however often it was asked
// for.
func (s *stage) checkSnapshots() error {
	if n := len(s.snapshots()); n > len(s.before.Members) {
		return fmt.Errorf("%d snapshots were made of %d volumes", n, len(s.before.Members))
	}
	return nil
}

func (s *stage) snapshots() []ec2sim.Snapshot { return s.w.lab.EC2.Snapshots() }

func (s *stage) deleteSnapshots(ctx context.Context) error {
	for _, snap := range s.snapshots() {
		if _, err := s.w.lab.EC2Client().DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap.ID}); err != nil {
			return err
		}
	}
	return nil
}

// checkDevices looks for what should not be there on any node: a suspended
// device, one of another generation, one where the disk is not.
func (s *stage) checkDevices(ctx context.Context, v view) error {
	var errs []error
	top := "ebb-" + string(s.disk)
	stack := fmt.Sprintf("%s-g%d", top, v.Measurement.Generation)
	want := []string{top, stack, stack + "-data", stack + "-meta", stack + "-pool"}
	for i, n := range s.w.lab.Nodes {
		if !n.Running() {
			continue
		}
		out, err := s.w.lab.Sh(ctx, i, "dmsetup info -c --noheadings --separator , -o name,suspended,tables_loaded")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var have []string
		for line := range strings.SplitSeq(out, "\n") {
			f := strings.Split(line, ",")
			if len(f) != 3 || !strings.HasPrefix(f[0], "ebb-") {
				continue
			}
			if f[1] != "Active" || f[2] != "Live" {
				errs = append(errs, fmt.Errorf("device %s on %s is %s, %s", f[0], n.ID(), f[1], f[2]))
			}
			have = append(have, f[0])
		}
		slices.Sort(have)
		if i == s.node && !slices.Equal(have, want) || i != s.node && len(have) > 0 {
			errs = append(errs, fmt.Errorf("node %s has the devices %v; the disk is on %s, generation %d", n.ID(), have, lab.NodeID(s.node), v.Measurement.Generation))
		}
	}
	return errors.Join(errs...)
}

// checkFilesystem unmounts the disk and lets the filesystem's own checker read it.
func (s *stage) checkFilesystem(ctx context.Context) error {
	fsck := "xfs_repair -n"
	if s.fs == "ext4" {
		fsck = "e2fsck -fn"
	}
	_, err := s.w.lab.Sh(ctx, s.node, fmt.Sprintf("umount %s; %s /dev/mapper/ebb-%s 2>&1", s.writer.mount, fsck, s.disk))
	return err
}
