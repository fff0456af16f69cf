package cmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
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
	Saving     float64         `json:"savingUsdMonth"`
	Cost       float64         `json:"costUsd"`
	Reason     string          `json:"reason"`
	Reasons    []string        `json:"reasons,omitempty"`
	Since      *time.Time      `json:"since,omitempty"`
	Expires    time.Time       `json:"expires"`
	Answer     string          `json:"answer,omitempty"`
	By         string          `json:"by,omitempty"`
	Note       string          `json:"note,omitempty"`
	Problem    string          `json:"problem,omitempty"` // why the answer did not arrive
	WorkflowID string          `json:"workflowId"`
}

func newProposalView(p control.Proposal) proposalView {
	d := p.Decision
	v := proposalView{
		Disk: p.Disk.ID, Name: p.Disk.Name, Operation: string(d.Wanted), FromGiB: d.FromGiB, ToGiB: d.GiB, Saving: d.SavingUSDMonth, Cost: d.CostUSD,
		Reason: d.Reason, Reasons: d.Reasons, Expires: p.Expires, Answer: p.Answer, By: p.By, Note: p.Note, WorkflowID: p.WorkflowID,
	}
	if !p.Since.IsZero() {
		v.Since = &p.Since
	}
	return v
}

func (p proposalView) ref() string { return control.Disk{ID: p.Disk, Name: p.Name}.Ref() }

// proposalList is the data of ebb proposals.
type proposalList struct {
	Proposals []proposalView `json:"proposals"`
	Silent    int            `json:"silent,omitempty"` // those that did not answer
}

func (a *app) newProposals() *cobra.Command {
	return &cobra.Command{
		Use:   "proposals",
		Short: "List what waits for an approval",
		Long: `List the operations that runs of Rightsize proposed and that wait for an approval,
the greatest saving first. A disk has one proposal at a time; it stands as it is
until it is answered or expires, and the operation looks at the disk anew.`,
		Example: "  ebb proposals\n  ebb proposals -o json | jq '[.proposals[].savingUsdMonth] | add'",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runProposals(c.Context()) },
	}
}

func (a *app) runProposals(ctx context.Context) error {
	return a.withClient(ctx, func(c *control.Client) error {
		list, err := a.proposals(ctx, c)
		if err != nil {
			return err
		}
		if len(list.Proposals) == 0 {
			a.streams.Say("nothing waits for an approval; runs propose for disks in mode recommend: ebb mode")
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
		rows = append(rows, []string{p.ref(), p.what(), usd(p.Saving), usd(p.Cost), since, clock(p.Expires), p.Reason})
	}
	return ui.Table(w, []string{"DISK", "WHAT", ">SAVES/MONTH", ">COSTS ONCE", "SINCE", "EXPIRES", "REASON"}, rows)
}

func (p proposalView) what() string {
	return fmt.Sprintf("%s %d -> %d GiB", p.Operation, p.FromGiB, p.ToGiB)
}
