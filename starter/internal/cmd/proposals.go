package cmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// proposalView is a proposal as the commands print it.
type proposalView struct {
	Disk       contract.DiskID `json:"disk"`
	Name       string          `json:"name,omitempty"`
	Operation  string          `json:"operation"`
	FromGiB    int64           `json:"fromGiB"`
	ToGiB      int64           `json:"toGiB"`
	Type       string          `json:"type,omitempty"` // of the volume afterwards
	IOPS       int32           `json:"iops,omitempty"`
	MiBs       int32           `json:"throughputMiBs,omitempty"`
	Saving     float64         `json:"savingUsdMonth"`
	Cost       float64         `json:"costUsd"`
	Reason     string          `json:"reason"`
	Reasons    []string        `json:"reasons,omitempty"`
	Since      *time.Time      `json:"since,omitempty"`
	Expires    time.Time       `json:"expires"`
	Answer     string          `json:"answer,omitempty"`
	By         string          `json:"by,omitempty"`
	Note       string          `json:"note,omitempty"`
	Waits      string          `json:"waits,omitempty"`   // for what, when it is approved
	Until      *time.Time      `json:"until,omitempty"`   // a rejection holds
	Problem    string          `json:"problem,omitempty"` // why the answer did not arrive
	WorkflowID string          `json:"workflowId"`
}

func newProposalView(p control.Proposal) proposalView {
	d := p.Decision
	v := proposalView{
		Disk: p.Disk.ID, Name: p.Disk.Name, Operation: string(d.Wanted), FromGiB: d.FromGiB, ToGiB: d.GiB, Saving: d.SavingUSDMonth, Cost: d.CostUSD,
		Type: d.Type, IOPS: d.IOPS, MiBs: d.ThroughputMiBs,
		Reason: d.Reason, Reasons: d.Reasons, WorkflowID: p.WorkflowID,
	}
	if !p.Since.IsZero() {
		v.Since = &p.Since
	}
	v.settle(p.Proposed)
	return v
}

// settle takes over how the proposal stands.
func (p *proposalView) settle(is fleet.Proposed) {
	p.Answer, p.By, p.Note, p.Waits, p.Expires, p.Until = is.Answer, is.By, is.Note, is.Waits, is.Expires, nil
	if !is.Until.IsZero() {
		p.Until = &is.Until
	}
}

func (p proposalView) ref() string { return control.Disk{ID: p.Disk, Name: p.Name}.Ref() }

// proposalList is the data of ebb proposals.
type proposalList struct {
	Proposals []proposalView `json:"proposals"`
	Silent    int            `json:"silent,omitempty"`   // those that did not answer
	Rejected  int            `json:"rejected,omitempty"` // those that are not shown, without --all
}

func (a *app) newProposals() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "proposals",
		Short: "List what waits for an approval",
		Long: `List the operations that runs of Rightsize proposed and that wait for an approval,
the greatest saving first, and those that are approved and wait for a budget or a
maintenance window. A disk has one proposal at a time; it stands as it is until it is
answered or expires, and the operation looks at the disk anew.

With --all also what was rejected: it is not proposed again for a while, and may be
approved after all.`,
		Example: "  ebb proposals\n  ebb proposals --all\n  ebb proposals -o json | jq '[.proposals[].savingUsdMonth] | add'",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runProposals(c.Context(), all) },
	}
	c.Flags().BoolVar(&all, "all", false, "show rejections that hold, too")
	return c
}

func (a *app) runProposals(ctx context.Context, all bool) error {
	return a.withClient(ctx, func(c *control.Client) error {
		list, err := a.proposals(ctx, c)
		if err != nil {
			return err
		}
		if !all {
			n := len(list.Proposals)
			list.Proposals = slices.DeleteFunc(list.Proposals, func(p proposalView) bool { return p.Answer == fleet.Rejected })
			list.Rejected = n - len(list.Proposals)
		}
		if len(list.Proposals) == 0 {
			a.streams.Say("nothing waits for an approval; runs propose for disks in mode recommend: ebb mode")
		}
		if list.Rejected > 0 {
			a.streams.Say("%s for now; see: ebb proposals --all", count(list.Rejected, "proposal")+" rejected")
		}
		if list.Silent > 0 {
			a.streams.Say("%s did not answer", count(list.Silent, "proposal"))
		}
		return a.output.Print(a.streams.Out, list, func(w io.Writer) error { return proposalTable(w, list.Proposals) })
	})
}

// proposals lists what waits, with the disks' names where they are known.
func (a *app) proposals(ctx context.Context, c *control.Client) (proposalList, error) {
	found, silent, err := c.Proposals(ctx)
	list := proposalList{Proposals: []proposalView{}, Silent: silent}
	if err != nil || len(found) == 0 {
		return list, err
	}
	names := diskNames(ctx, c)
	for _, p := range found {
		p.Disk.Name = names[p.Disk.ID].Name
		list.Proposals = append(list.Proposals, newProposalView(p))
	}
	return list, nil
}

// named are disks by id.
type named map[contract.DiskID]control.Disk

// diskNames knows what disks are called. Where it cannot be told ids must do.
func diskNames(ctx context.Context, c *control.Client) named {
	out := named{}
	if fleet, err := c.Fleet(ctx); err == nil {
		for _, f := range fleet.Disks {
			out[f.Disk] = control.Disk{ID: f.Disk, Name: f.Name}
		}
	}
	return out
}

// ref is what to call a disk in a table.
func (n named) ref(d contract.DiskID) string {
	if known, ok := n[d]; ok {
		return known.Ref()
	}
	return string(d)
}

func proposalTable(w io.Writer, all []proposalView) error {
	if len(all) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(all))
	for _, p := range all {
		since := "-"
		if p.Since != nil {
			since = clock(*p.Since)
		}
		expires, reason := p.Expires, p.Reason
		switch {
		case p.Waits != "":
			reason = "waits for " + p.Waits
		case p.Until != nil:
			expires = *p.Until
		}
		rows = append(rows, []string{p.ref(), p.what(), usd(p.Saving), usd(p.Cost), since, clock(expires), p.answered(), reason})
	}
	return ui.Table(w, []string{"DISK", "WHAT", ">SAVES/MONTH", ">COSTS ONCE", "SINCE", "EXPIRES", "ANSWER", "REASON"}, rows)
}

// answered is what was answered, and by whom.
func (p proposalView) answered() string {
	if p.By == "" {
		return orDash(p.Answer)
	}
	return p.Answer + " by " + p.By
}

func (p proposalView) what() string {
	if p.Operation == string(plan.Retype) {
		return "retype to " + plan.Volume{Type: p.Type, IOPS: p.IOPS, ThroughputMiBs: p.MiBs}.String()
	}
	return fmt.Sprintf("%s %d -> %d GiB", p.Operation, p.FromGiB, p.ToGiB)
}
