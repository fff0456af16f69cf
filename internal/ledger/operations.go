package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/report"
)

// verbs are what people call the operations.
var verbs = map[string]string{
	contract.GrowWorkflow: "grow", contract.ShrinkWorkflow: "shrink", contract.RehomeWorkflow: "move",
	contract.ExpandWorkflow: "expand", contract.CreateDiskWorkflow: "create", contract.DeleteDiskWorkflow: "delete",
	contract.CleanWorkflow: "clean", contract.RetypeWorkflow: "retype",
}

// ByAgent is who asked for a growth that nobody signed: a node's agent starts them
// so.
const ByAgent = "the node's agent"

// operations counts what was done, what it cost, and what only the disks remember.
func (b *book) operations() {
	why := &reasons{}
	for _, o := range b.in.Operations {
		b.cost(o)
		if !o.Ended.IsZero() && o.Ended.Before(b.in.From) || o.Began.After(b.in.To) {
			continue // it is here for what it cost later
		}
		if o.Result != nil && o.Result.Outcome == contract.Planned {
			continue
		}
		row := b.row(o)
		b.out.Operations = append(b.out.Operations, row)
		b.count(row, o)
		why.add(row)
	}
	b.unrecorded(why)
	slices.SortStableFunc(b.out.Operations, func(x, y report.OperationRow) int {
		return cmp.Or(x.Began.Compare(y.Began), cmp.Compare(x.Disk, y.Disk))
	})
	b.out.Done, b.out.Refused = why.sorted()
}

// row is an operation for the page.
func (b *book) row(o Operation) report.OperationRow {
	row := report.OperationRow{
		Began: o.Began.UTC(), Disk: string(o.Disk), Name: o.Name, Operation: cmp.Or(verbs[o.Workflow], strings.ToLower(o.Workflow)),
		Outcome: o.Outcome, FromGiB: o.FromGiB, ToGiB: o.ToGiB, By: o.By, Code: o.Code, Why: o.Reason,
	}
	if !o.Ended.IsZero() {
		row.Ended = o.Ended.UTC()
	}
	if row.By == "" && o.Workflow == contract.GrowWorkflow {
		row.By = ByAgent
	}
	if e := b.disks[o.Disk]; e != nil {
		row.Name, row.Namespace, row.Class = cmp.Or(e.line.Name, o.Name), e.line.Namespace, e.Class
	} else if ns, claim, ok := strings.Cut(o.Name, "/"); ok && !strings.Contains(claim, "/") {
		row.Namespace = ns
	}
	r := o.Result
	if r == nil {
		return row
	}
	row.FromGiB, row.ToGiB = cmp.Or(r.BeforeGiB, row.FromGiB), cmp.Or(r.AfterGiB, row.ToGiB)
	row.UsedBytes, row.CopiedBytes = r.UsedBytes, r.CopiedBytes
	for _, p := range r.SwapPausesMS {
		row.PauseMS = max(row.PauseMS, p)
	}
	if r.Refusal != nil && o.Outcome == report.OutcomeRefused {
		row.Code, row.Why = string(r.Refusal.Code), r.Refusal.Message
		row.ToGiB = o.ToGiB
	}
	return row
}

// count adds an operation to the sums.
func (b *book) count(row report.OperationRow, o Operation) {
	t := &b.out.Totals
	if row.Outcome == report.OutcomeRunning {
		t.Running++
		return
	}
	if row.Outcome != report.OutcomeUnrecorded {
		t.Operations++
	}
	p := b.at(cmpTime(o.Ended, b.in.To))
	if p == nil {
		p = &hour{}
	}
	e := b.disks[o.Disk]
	each := func(fn func(*group)) {
		if e != nil {
			for _, g := range e.groups {
				fn(g)
			}
		}
	}
	refused := func(n *int) {
		*n++
		p.refused++
		each(func(g *group) { g.refused++ })
	}
	switch row.Outcome {
	case report.OutcomeRefused:
		refused(&t.RefusedOps)
		return
	case report.OutcomeCancelled:
		t.Cancelled++
		return
	case report.OutcomeUnread:
		t.Unread++
		return
	case report.OutcomeFailed:
		refused(&t.Failed)
		return
	}
	if r := o.Result; r != nil {
		t.CopiedBytes += r.CopiedBytes
		t.Pauses += len(r.SwapPausesMS)
		t.LongestMS = max(t.LongestMS, row.PauseMS)
	}
	switch row.Operation {
	case "grow":
		t.Grows++
		t.GrownGiB += max(row.ToGiB-row.FromGiB, 0)
		p.grows++
		each(func(g *group) { g.grows++ })
		if e != nil {
			e.line.Grows++
		}
	case "shrink":
		t.Shrinks++
		t.GivenGiB += max(row.FromGiB-row.ToGiB, 0)
		p.shrinks++
		each(func(g *group) { g.shrinks++ })
		if e != nil {
			e.line.Shrinks++
		}
	default:
		p.others++
		switch row.Operation {
		case "move":
			t.Moves++
		case "expand":
			t.Expands++
		case "create":
			t.Creates++
		case "delete":
			t.Deletes++
		}
	}
}

func cmpTime(t, or time.Time) time.Time {
	if t.IsZero() {
		return or
	}
	return t
}

// cost is what a shrink costs beside the backing: the second volume while it lasts,
// the old ones in their grace period, and the snapshot.
func (b *book) cost(o Operation) {
	if o.Workflow != contract.ShrinkWorkflow || o.Outcome == report.OutcomeRefused && !began(o) {
		return
	}
	if o.Result != nil && o.Result.Outcome == contract.Planned {
		return
	}
	e := b.disks[o.Disk]
	price := tariffOf(b.in.Prices, nil)
	if e != nil {
		price = e.price
	}
	to, ended := o.ToGiB, cmpTime(o.Ended, b.in.To)
	var r contract.Result
	if o.Result != nil {
		r = *o.Result
		to = cmp.Or(r.AfterGiB, to)
	} else {
		r.BeforeGiB = o.FromGiB
	}
	month := func(gib int64) float64 { return float64(gib)*price.gib + price.extra }
	if to > 0 {
		b.spend(costMoves, e, o.Began, ended, to*contract.GiB, month(to))
	}
	if mayBeDone(o) && r.BeforeGiB > 0 {
		b.spend(costGrace, e, ended, b.deleted(r.Retired, ended), r.BeforeGiB*contract.GiB, month(r.BeforeGiB))
	}
	if r.Snapshot != "" {
		gone := b.in.To
		for i, id := range strings.Split(r.Snapshot, ",") {
			at, ok := b.in.Snapshots[id]
			if !ok {
				gone = b.in.To
				break
			}
			if i == 0 || at.After(gone) {
				gone = at
			}
		}
		usd := float64(r.UsedBytes) / float64(contract.GiB) * b.in.Prices.SnapshotGiBMonth / monthHours
		b.spend(costSnapshots, e, o.Began, gone, 0, usd)
	}
}

const monthHours = 730

// mayBeDone tells whether an operation was done, for all that is known.
func mayBeDone(o Operation) bool {
	return o.Outcome == report.OutcomeDone || o.Outcome == report.OutcomeUnread
}

// began tells whether a refused shrink had made a volume by then.
func began(o Operation) bool {
	return o.Result != nil && o.Result.Refusal != nil && o.Result.Refusal.Code == contract.MoveFailed && o.ToGiB > 0
}

// deleted is when the last of the volumes that a shrink retired was deleted.
func (b *book) deleted(volumes []string, ended time.Time) time.Time {
	last, known := ended, len(volumes) > 0
	for _, id := range volumes {
		at, ok := b.in.Retired[id]
		switch {
		case !ok:
			known = false
		case at.IsZero():
			return b.in.To
		case at.After(last):
			last = at
		}
	}
	if !known {
		b.estimated = true
		if end := ended.Add(contract.DefaultGrace); end.After(last) {
			last = end
		}
	}
	return last
}

// unrecorded finds changes of a backing, in the disks' own hours, that belong to no
// operation: Temporal has forgotten it.
func (b *book) unrecorded(why *reasons) {
	done := map[contract.DiskID][]Operation{}
	for _, o := range b.in.Operations {
		done[o.Disk] = append(done[o.Disk], o)
	}
	for _, e := range b.order {
		var was *contract.HistoryHour
		for i := range e.Hours {
			r := &e.Hours[i]
			if r.BackingBytes <= 0 || r.Hour.Before(b.in.From.Truncate(time.Hour)) || r.Hour.After(b.in.To) {
				continue
			}
			if was != nil && r.BackingBytes != was.BackingBytes && !explained(done[e.Facts.Disk], was.Hour, r.Hour.Add(time.Hour)) {
				b.remember(why, e, was, r)
			}
			was = r
		}
	}
}

// explained tells whether an operation was at work between two hours. The hour of a
// record and the clock of a workflow differ a little.
func explained(ops []Operation, from, to time.Time) bool {
	const slack = 15 * time.Minute
	return slices.ContainsFunc(ops, func(o Operation) bool {
		return o.Outcome != report.OutcomeRefused && o.Began.Before(to.Add(slack)) && (o.Ended.IsZero() || o.Ended.After(from.Add(-slack)))
	})
}

func (b *book) remember(why *reasons, e *entry, was, r *contract.HistoryHour) {
	o := Operation{
		Disk: e.Facts.Disk, Workflow: contract.GrowWorkflow, Outcome: report.OutcomeUnrecorded, Began: r.Hour, Ended: r.Hour, By: "not on record",
		FromGiB: (was.BackingBytes + contract.GiB/2) / contract.GiB, ToGiB: (r.BackingBytes + contract.GiB/2) / contract.GiB,
		Reason: "the disk remembers that its backing changed; Temporal does not remember the operation",
	}
	if r.BackingBytes < was.BackingBytes {
		o.Workflow = contract.ShrinkWorkflow
		b.estimated = true
		b.spend(costGrace, e, r.Hour, r.Hour.Add(contract.DefaultGrace), was.BackingBytes, float64(o.FromGiB)*e.price.gib+e.price.extra)
	}
	row := b.row(o)
	row.UsedBytes = r.UsedMaxBytes
	b.out.Operations = append(b.out.Operations, row)
	b.out.Totals.Unrecorded++
	b.count(row, o)
	why.add(row)
}

// reasons are why things were done, or not.
type reasons struct{ done, not map[[2]string]*tally }

type tally struct {
	report.Reason
	disks map[string]bool
}

func (s *reasons) add(row report.OperationRow) {
	if s.done == nil {
		s.done, s.not = map[[2]string]*tally{}, map[[2]string]*tally{}
	}
	to, key := s.done, [2]string{row.Operation, "asked for by " + cmp.Or(row.By, "somebody")}
	switch row.Outcome {
	case report.OutcomeRunning:
		key[0] += ", running"
	case report.OutcomeRefused:
		to, key = s.not, [2]string{row.Operation + ": " + cmp.Or(row.Code, "refused"), cmp.Or(codeWords[contract.RefusalCode(row.Code)], "refused")}
	case report.OutcomeCancelled, report.OutcomeFailed:
		to, key = s.not, [2]string{row.Operation + ": " + row.Outcome, map[string]string{
			report.OutcomeCancelled: "somebody cancelled it; the disk is as it was", report.OutcomeFailed: "an error that is no refusal",
		}[row.Outcome]}
	case report.OutcomeUnread:
		to, key = s.not, [2]string{row.Operation + ": " + row.Outcome, "it ended; what came of it could not be read"}
	case report.OutcomeUnrecorded:
		key[1] = "Temporal has forgotten why"
	}
	t := to[key]
	if t == nil {
		t = &tally{Reason: report.Reason{What: key[0], Why: key[1]}, disks: map[string]bool{}}
		to[key] = t
	}
	t.Times++
	t.disks[row.Disk] = true
	t.Disks = len(t.disks)
	if row.FromGiB > 0 && row.ToGiB > 0 {
		t.GiB += max(row.ToGiB-row.FromGiB, row.FromGiB-row.ToGiB)
	}
	t.Example = report.Example{Disk: cmp.Or(row.Name, row.Disk), At: row.Began, Text: exampleText(row)} // the latest
}

func exampleText(row report.OperationRow) string {
	s := ""
	if row.FromGiB > 0 && row.ToGiB > 0 && row.FromGiB != row.ToGiB && !strings.Contains(row.Why, fmt.Sprintf("to %d GiB", row.ToGiB)) {
		s = fmt.Sprintf("from %d to %d GiB", row.FromGiB, row.ToGiB)
	}
	if s != "" && row.Why != "" {
		s += ": "
	}
	return s + row.Why
}

func (s *reasons) sorted() (done, not []report.Reason) {
	list := func(m map[[2]string]*tally) []report.Reason {
		out := make([]report.Reason, 0, len(m))
		for _, t := range m {
			out = append(out, t.Reason)
		}
		report.SortReasons(out)
		return out
	}
	return list(s.done), list(s.not)
}

// codeWords are the refusals in words.
var codeWords = map[contract.RefusalCode]string{
	contract.BadInput:            "the request made no sense",
	contract.DiskUnknown:         "there is no such disk",
	contract.DiskExists:          "the disk exists already",
	contract.DiskIncomplete:      "a volume of the disk is missing",
	contract.BelowUsed:           "less than what is used and its headroom",
	contract.NoRoomToShrink:      "the backing is as small as it should be",
	contract.NothingToGrow:       "the backing is as large as it should be",
	contract.NothingToRetype:     "the volume is as it should be",
	contract.AtCeiling:           "the backing may not grow further",
	contract.NodeUnknown:         "EC2 does not know the node, or it does not run",
	contract.NodeUnsupported:     "the node's kernel or tools lack something",
	contract.NodeUnreachable:     "no agent answered on the node",
	contract.ZoneMismatch:        "volume and node are in different zones",
	contract.AttachSlotsFull:     "the node can attach no more volumes",
	contract.AttachStuck:         "EBS did not finish attaching a volume",
	contract.DetachStuck:         "a volume does not come off its node",
	contract.ModificationLimit:   "EBS refuses to modify the volume now",
	contract.SizeLimit:           "beyond the limits of the volume type",
	contract.PermissionMissing:   "an IAM permission is missing",
	contract.EC2Refused:          "EC2 refused",
	contract.VolumeUnformatted:   "a volume has no header of Ebb",
	contract.VolumeForeign:       "a volume holds something else",
	contract.VolumeDamaged:       "a volume is damaged",
	contract.VolumeClone:         "a volume is a copy made from a snapshot",
	contract.FormatNewer:         "a later version wrote the volume",
	contract.DuplicateGeneration: "two volumes claim the same place",
	contract.DiskBusy:            "the disk was in use, or another operation ran",
	contract.MoveFailed:          "the new volume failed; the move was undone",
	contract.VolumeFailing:       "the old volume returns errors",
	contract.BackupRunning:       "a backup did not end in time",
	ProposalExpired:              "nobody approved it in time",
	ProposalRejected:             "somebody rejected it",
}
