package disk

import (
	"context"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Growing tells whether a growth waits for the disk's lock.
func (m *Manager) Growing(d contract.DiskID) bool { return m.handle(d).growing.Load() > 0 }

// Guided tells whether a policy's guide of the disk is kept.
func (m *Manager) Guided(d contract.DiskID) bool { return m.guide(d) != nil }

// WithoutPrecopy has the mirror copy everything, as on a kernel that lacks what a
// pre-copy needs.
func (m *Manager) WithoutPrecopy() { m.precopies = false }

// HeaderPatience is how long a look waits for a volume that does not answer.
const HeaderPatience = headerPatience

// ReconcileLate is what is done about a disk whose volume did not answer at first.
func (m *Manager) ReconcileLate(ctx context.Context, d contract.DiskID) error {
	return m.reconcile(ctx, d)
}
