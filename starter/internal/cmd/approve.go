package cmd

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type answerOptions struct {
	all    bool
	note   string
	yes    bool
	dryRun bool
	now    bool
	hold   size.DurationFlag
	update string // contract.UpdateApprove or UpdateReject
	word   string // approved or rejected
}

// answers is the data of ebb approve and ebb reject.
type answers struct {
	Answer    string         `json:"answer"`
	Proposals []proposalView `json:"proposals"`
	DryRun    bool           `json:"dryRun,omitempty"`
}

func (a *app) newApprove() *cobra.Command {
	o := answerOptions{update: contract.UpdateApprove, word: fleet.Approved}
	c := a.answering(&o)
	c.Use, c.Short = "approve DISK...", "Approve what was proposed for disks"
	c.Long = `Approve the operations that were proposed for disks (ebb proposals), also those that
were rejected and not proposed again yet. Each begins as soon as the policy's budgets
have room for it and, where the policy has maintenance windows for moves, one is open;
ebb proposals shows what it waits for, ebb reject takes the approval back until then.
Each looks at its disk anew and refuses what does not fit any more. When one of the
disks has no proposal, nothing is approved.`
	c.Example = "  ebb approve data-1\n  ebb approve data-1 --now\n  ebb approve --all --yes --note 'as agreed on Monday'"
	c.Flags().BoolVar(&o.now, "now", false, "wait for no maintenance window (budgets hold all the same)")
	return c
}

func (a *app) newReject() *cobra.Command {
	o := answerOptions{update: contract.UpdateReject, word: fleet.Rejected}
	c := a.answering(&o)
	c.Use, c.Short = "reject DISK...", "Reject what was proposed for disks"
	c.Long = `Reject what was proposed for disks (ebb proposals), or take an approval back as long
as it waits. It is not proposed again for as long as an answer was waited for (7 days,
or --proposal-expiry of ebb schedule apply), or for as long as --for says, unless it
becomes another matter: growth instead of a shrink or the other way round, growth that
is urgent, or a quarter more of it or of the saving. It may be approved after all.
Growth of a disk that runs full asks nobody. To be left alone for good:
ebb mode observe disk=DISK.`
	c.Example = "  ebb reject data-1 --note 'a restore is planned'\n  ebb reject data-1 --for 30d\n  ebb reject --all --dry-run"
	c.Flags().Var(&o.hold, "for", "how long not to propose it again (default: as long as an answer was waited for)")
	return c
}

func (a *app) answering(o *answerOptions) *cobra.Command {
	c := &cobra.Command{
		Args: func(c *cobra.Command, args []string) error {
			if (len(args) > 0) == o.all {
				return exit.New(exit.Usage, "want DISKs, or --all").WithNext("%s --help", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runAnswer(c.Context(), args, *o) },
	}
	c.Flags().BoolVar(&o.all, "all", false, "everything that waits for an approval")
	c.Flags().StringVar(&o.note, "note", "", "a word for the record")
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask, with --all")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show which proposals it would be; answer none")
	return c
}

func (a *app) runAnswer(ctx context.Context, refs []string, o answerOptions) error {
	ask := o.all && !o.yes && !o.dryRun
	if ask && !ui.IsTerminal(a.streams.In) {
		return exit.New(exit.Usage, "--all needs --yes when nobody is there to ask")
	}
	return a.withClient(ctx, func(c *control.Client) error {
		waiting, err := a.waiting(ctx, c, refs, o)
		if err != nil {
			return err
		}
		if ask && len(waiting) > 0 {
			if err := a.confirmAll(ctx, waiting, o); err != nil {
				return err
			}
		}
		out := answers{Answer: o.word, Proposals: waiting, DryRun: o.dryRun}
		var failed error
		for i := range out.Proposals {
			if o.dryRun {
				continue
			}
			p := &out.Proposals[i]
			if ctx.Err() != nil { // Ctrl-C: what was answered stands
				p.Problem, failed = "interrupted", ctx.Err()
				continue
			}
			is, err := c.AnswerProposal(ctx, control.Disk{ID: p.Disk, Name: p.Name}, o.update, fleet.Answer{
				By: c.Who(), Note: o.note, For: time.Duration(o.hold), Now: o.now,
			})
			if err != nil {
				p.Problem, failed = err.Error(), err
				continue
			}
			p.settle(is)
		}
		if err := a.output.Print(a.streams.Out, out, func(w io.Writer) error { return answerTable(w, out) }); err != nil {
			return err
		}
		if o.update == contract.UpdateApprove && !o.dryRun && failed == nil && len(waiting) > 0 {
			a.streams.Say("each begins as soon as there is room for it (ebb proposals); watch one with: ebb watch %s", waiting[0].ref())
		}
		return failed
	})
}

// waiting are the proposals of disks; all of them must have one. Without disks they
// are those that nobody answered and, to be rejected, those that are approved and wait.
func (a *app) waiting(ctx context.Context, c *control.Client, refs []string, o answerOptions) ([]proposalView, error) {
	if o.all {
		list, err := a.proposals(ctx, c)
		list.Proposals = slices.DeleteFunc(list.Proposals, func(p proposalView) bool {
			return p.Answer != "" && (p.Answer != fleet.Approved || o.update == contract.UpdateApprove)
		})
		if err == nil && len(list.Proposals) == 0 {
			a.streams.Say("nothing waits for an approval")
		}
		return list.Proposals, err
	}
	out := []proposalView{}
	var none []string
	var first error
	seen := map[contract.DiskID]bool{}
	for _, ref := range refs {
		d, err := c.Resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		if seen[d.ID] {
			continue
		}
		seen[d.ID] = true
		p, err := c.Proposal(ctx, d)
		switch {
		case exit.CodeOf(err) == exit.NotFound:
			none = append(none, d.String())
			if first == nil {
				first = err
			}
		case err != nil:
			return nil, err
		default:
			out = append(out, newProposalView(p))
		}
	}
	switch {
	case len(none) == 1 && len(refs) == 1:
		return nil, first
	case len(none) > 0:
		return nil, exit.New(exit.NotFound, "no proposal waits for %s; nothing was answered", strings.Join(none, ", ")).WithNext("ebb proposals")
	}
	return out, nil
}

// confirmAll shows everything and asks.
func (a *app) confirmAll(ctx context.Context, waiting []proposalView, o answerOptions) error {
	if err := proposalTable(a.streams.Err, waiting); err != nil {
		return err
	}
	a.streams.Say("%s will be %s. Type yes to go on:", count(len(waiting), "proposal"), o.word)
	return a.typed(ctx, "yes", o.word)
}

func answerTable(w io.Writer, out answers) error {
	if len(out.Proposals) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(out.Proposals))
	for _, p := range out.Proposals {
		answer := p.Answer
		switch {
		case out.DryRun:
			answer = "would be " + out.Answer
		case p.Problem != "":
			answer = "not answered: " + p.Problem
		case p.Until != nil:
			answer += " until " + clock(*p.Until)
		}
		rows = append(rows, []string{p.ref(), answer, p.what(), usd(p.Saving), orDash(p.Note)})
	}
	return ui.Table(w, []string{"DISK", "ANSWER", "WHAT", ">SAVES/MONTH", "NOTE"}, rows)
}
