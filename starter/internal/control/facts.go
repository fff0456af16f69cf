package control

import (
	"context"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// lookBack is how many runs are tried for one that saw the whole fleet.
const lookBack = 3

// Fleet is all disks as far as they are known without asking nodes. Tags and
// labels are left out.
type Fleet struct {
	Disks []plan.Facts
	// At is when that was so; zero: now.
	At time.Time
}

// Fleet lists all disks. Thousands do not fit an answer of Temporal's: of such a
// fleet it is what the last run of Rightsize saw, which lacks detached disks.
func (c *Client) Fleet(ctx context.Context) (Fleet, error) {
	reports, err := c.Inspect(ctx, contract.InspectInput{FactsOnly: true})
	if err == nil {
		out := Fleet{Disks: make([]plan.Facts, 0, len(reports))}
		for _, r := range reports {
			out.Disks = append(out.Disks, plan.FactsOf(r))
		}
		return out, nil
	}
	if !tooLarge(err) {
		return Fleet{}, err
	}
	runs, err := c.rightsizes(ctx)
	for _, e := range runs[:min(len(runs), lookBack)] {
		var d Decided
		if d, err = c.Decided(ctx, e); err == nil && d.Run.Ended != nil && d.Missing == 0 && len(d.Facts) > 0 {
			return Fleet{Disks: d.Facts, At: d.Run.At}, nil
		}
	}
	return Fleet{}, exit.New(exit.Failed, "there are too many disks to list them at once, and no run of Rightsize has looked at all of them").Because(err).
		WithNext("name disks by their ids; or have a run first: ebb schedule run --watch")
}

// tooLarge tells that a result did not fit Temporal's limit of 2 MiB. Who made it
// fails with these words; there is no type for it.
func tooLarge(err error) bool {
	return strings.Contains(err.Error(), "exceeds size limit")
}
