package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/acked"
	"github.com/ebb-storage/ebb/tests/node"
)

// What happens to a move's volumes, below all that uses them. The new volume goes
// with its move, and its fault with it; the old one is mended.
var (
	newFailsWrites = newVolume("fails writes", node.Fault{Kind: node.FaultErrorWrites})
	newFails       = newVolume("fails", node.Fault{Kind: node.FaultError})
	// newUnreadable gives back an error for something that was copied: only the
	// comparison reads it.
	newUnreadable = strike{name: "new volume cannot read what was copied", do: func(ctx context.Context, s *stage) error {
		return s.unreadable(ctx, contract.RoleIncoming, 0)
	}}
	// oldUnreadable gives back an error for something that is not copied yet: the
	// last of the files that the disk was filled with.
	oldUnreadable = strike{name: "old volume cannot read what is to be copied", do: func(ctx context.Context, s *stage) error {
		return s.unreadable(ctx, contract.RoleActive, -1)
	}, mend: func(ctx context.Context, s *stage) error {
		// Nobody else answers for it meanwhile.
		file := filepath.Join(s.writer.mount, s.lost)
		if _, err := s.w.lab.Sh(ctx, s.node, fmt.Sprintf("echo 3 > /proc/sys/vm/drop_caches; LC_ALL=C cat %s 2>&1 >/dev/null | grep 'Input/output error'", file)); err != nil {
			return fmt.Errorf("%s can be read: %w", file, err)
		}
		return s.w.lab.Nodes[s.node].SetVolumeFault(ctx, s.broken, node.Fault{})
	}}
)

func newVolume(how string, f node.Fault) strike {
	return strike{name: "new volume " + how, do: func(ctx context.Context, s *stage) error {
		return s.breakVolume(ctx, contract.RoleIncoming, f)
	}}
}

// breakVolume breaks the disk's volume of that role, and remembers which it is.
func (s *stage) breakVolume(ctx context.Context, role contract.Role, f node.Fault) error {
	var err error
	if s.broken, err = s.volumeOf(role); err != nil {
		return err
	}
	return s.w.lab.Nodes[s.node].SetVolumeFault(ctx, s.broken, f)
}

func (s *stage) volumeOf(role contract.Role) (string, error) {
	for _, v := range s.volumes() {
		if v.Tags[contract.TagRole] == string(role) {
			return v.ID, nil
		}
	}
	return "", fmt.Errorf("the disk has no volume that is %s", role)
}

// unreadable makes one block of an acknowledged file unreadable on the volume of
// that role, as soon as it is there: the i-th file of those that the disk was
// filled with, from the end when negative.
func (s *stage) unreadable(ctx context.Context, role contract.Role, i int) error {
	files, err := acked.Contents(s.writer.journal)
	if err != nil {
		return err
	}
	var names []string
	for name, b := range files {
		if len(b) >= fillFile/2 { // the writer's are smaller
			names = append(names, name)
		}
	}
	slices.Sort(names)
	s.lost = names[(i+len(names))%len(names)]
	id, err := s.volumeOf(role)
	if err != nil {
		return err
	}
	var block int64
	if err := s.w.lab.Until(ctx, opLimit, s.lost+" is on "+id, func(context.Context) (err error) {
		block, err = findBlock(s.w.lab.EC2.VolumePath(id), files[s.lost])
		return err
	}); err != nil {
		return err
	}
	return s.breakVolume(ctx, role, node.Fault{Kind: node.FaultDust, Blocks: []int64{block}})
}

// dustBlock is the unit of node.Fault's Blocks, and not larger than a block of the
// filesystem.
const dustBlock = 4096

// findBlock finds the block of a volume's file that holds the beginning of a
// file's contents. It looks where there is data only.
func findBlock(volume string, contents []byte) (int64, error) {
	f, err := os.Open(volume)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for off, end := int64(0), int64(0); ; {
		if off >= end {
			if off, err = f.Seek(end, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
				return 0, errors.New("the file's contents are not there")
			} else if err != nil {
				return 0, err
			}
			if end, err = f.Seek(off, unix.SEEK_HOLE); err != nil {
				return 0, err
			}
			off -= off % dustBlock
		}
		n, err := f.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) || n < dustBlock {
			return 0, fmt.Errorf("%d bytes of %s at %d: %w", n, volume, off, err)
		}
		for i := 0; i+dustBlock <= n; i += dustBlock {
			if bytes.Equal(buf[i:i+dustBlock], contents[:dustBlock]) {
				return (off + int64(i)) / dustBlock, nil
			}
		}
		off += int64(n - n%dustBlock)
	}
}

// endedIn says whether a move came to a step and not to the next one.
func (s *stage) endedIn(ctx context.Context, op operation, step string) error {
	if err := s.event(ctx, enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, step); err != nil {
		return err
	}
	next := op.steps()[slices.Index(op.steps(), step)+1]
	if err := s.event(ctx, enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, next); !errors.Is(err, errWithout) {
		return fmt.Errorf("the operation came to %s: %w", next, err)
	}
	return nil
}
