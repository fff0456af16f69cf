package workflows

import (
	"fmt"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

// cleansAtOnce bounds the disks cleaned together.
const cleansAtOnce = 8

// Reap finds the volumes and snapshots of Ebb's that nothing needs: retired past
// their grace, left by creations and moves that failed, snapshots past their
// retention. It only ever deletes what tags, headers and EC2 agree on, and only
// when asked to; the rest it reports.
func Reap(ctx workflow.Context, in contract.ReapInput) (contract.ReapResult, error) {
	r := &reap{in: in}
	if err := in.Validate(); err != nil {
		r.result.Refusal = badInput(err)
		return r.result, nil
	}
	found, err := fleet.ListLeftovers.Execute(fleetControl(ctx), in)
	if refusal, ok := contract.AsRefusal(err); ok {
		r.result.Refusal = refusal
		return r.result, nil
	}
	if err != nil {
		return r.result, err
	}
	r.result.Found = len(found.Leftovers)
	if found.More {
		r.result.Problems = append(r.result.Problems, "there are more than 1000 leftovers: these are the first, and the others are looked at when some of these are gone")
	}
	byDisk := map[contract.DiskID][]contract.Leftover{}
	var disks []contract.DiskID
	for _, l := range found.Leftovers {
		switch {
		case l.Suspect:
			r.fate(l, false, "reported only: "+l.Reason)
		case !in.Delete:
			r.fate(l, false, "not deleted: this run only reports")
		case l.Snapshot != "":
			r.snapshot(ctx, l)
		default:
			if byDisk[l.Disk] == nil {
				disks = append(disks, l.Disk)
			}
			byDisk[l.Disk] = append(byDisk[l.Disk], l)
		}
	}
	if len(disks) > 0 {
		if err := r.clean(ctx, disks, byDisk); err != nil {
			return r.result, err
		}
	}
	r.show(ctx)
	return r.result, ctx.Err()
}

type reap struct {
	in     contract.ReapInput
	result contract.ReapResult
}

func (r *reap) fate(l contract.Leftover, deleted bool, why string) {
	r.result.Fates = append(r.result.Fates, contract.Fate{Leftover: l, Deleted: deleted, Why: why})
	if deleted {
		r.result.Deleted++
		r.result.FreedGiB += l.GiB
	}
}

func (r *reap) snapshot(ctx workflow.Context, l contract.Leftover) {
	_, err := fleet.DeleteSnapshot.Execute(fleetControl(ctx), fleet.DeleteSnapshotInput{Disk: l.Disk, Snapshot: l.Snapshot})
	if err != nil {
		r.fate(l, false, "not deleted: "+words(err))
		return
	}
	r.fate(l, true, l.Reason)
}

// words is an error's text as people read it.
func words(err error) string {
	if refusal, ok := contract.AsRefusal(err); ok {
		return refusal.Error()
	}
	return err.Error()
}

// clean has each disk's leftovers removed under the disk's lock.
func (r *reap) clean(ctx workflow.Context, disks []contract.DiskID, leftovers map[contract.DiskID][]contract.Leftover) error {
	census, err := fleet.TakeCensus.Execute(fleetControl(ctx), fleet.CensusInput{})
	if err != nil {
		return err
	}
	hosts := map[string]string{}
	for _, n := range census.Nodes {
		if hosts[n.Zone] == "" {
			hosts[n.Zone] = n.Node
		}
	}
	results := make([]contract.Result, len(disks))
	failed := make([]string, len(disks))
	each(ctx, cleansAtOnce, len(disks), func(ctx workflow.Context, i int) {
		d := disks[i]
		child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID: contract.WorkflowID(d), TaskQueue: contract.ControlQueue,
			// It may hold a volume attached to look at it: it must end by itself.
			ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
			WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			StaticSummary:         fmt.Sprintf("Remove %d leftovers of disk %s", len(leftovers[d]), d),
			TypedSearchAttributes: temporal.NewSearchAttributes(attrDisk.ValueSet(string(d)), attrOperation.ValueSet(contract.CleanWorkflow)),
		})
		err := workflow.ExecuteChildWorkflow(child, contract.CleanWorkflow, contract.CleanInput{
			Disk: d, Leftovers: leftovers[d], Hosts: hosts, Settings: r.in.Settings,
		}).Get(ctx, &results[i])
		switch {
		case runs(err):
			failed[i] = "kept: an operation runs on the disk"
		case err != nil:
			failed[i] = "kept: " + err.Error()
		case results[i].Refusal != nil:
			failed[i] = "kept: " + results[i].Refusal.Error()
		}
	})
	for i, d := range disks {
		known := map[string]bool{}
		for _, f := range results[i].Fates {
			known[f.Volume] = true
			r.fate(f.Leftover, f.Deleted, f.Why)
		}
		for _, l := range leftovers[d] {
			if !known[l.Volume] {
				r.fate(l, false, failed[i])
			}
		}
	}
	return nil
}

// show writes the details the Temporal UI shows beside the run.
func (r *reap) show(ctx workflow.Context) {
	var b strings.Builder
	fmt.Fprintf(&b, "### Reap\n\n%d found, %d deleted, %d GiB freed\n\n", r.result.Found, r.result.Deleted, r.result.FreedGiB)
	for _, f := range r.result.Fates[:min(len(r.result.Fates), 50)] {
		fmt.Fprintf(&b, "- `%s%s` of `%s`, %d GiB: %s\n", f.Volume, f.Snapshot, f.Disk, f.GiB, f.Why)
	}
	workflow.SetCurrentDetails(ctx, b.String())
}
