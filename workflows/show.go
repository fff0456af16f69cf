package workflows

import (
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

var (
	attrDisk      = temporal.NewSearchAttributeKeyKeyword(contract.AttrDisk)
	attrClaim     = temporal.NewSearchAttributeKeyKeyword(contract.AttrClaim)
	attrNode      = temporal.NewSearchAttributeKeyKeyword(contract.AttrNode)
	attrPhase     = temporal.NewSearchAttributeKeyKeyword(contract.AttrPhase)
	attrOperation = temporal.NewSearchAttributeKeyKeyword(contract.AttrOperation)
)

// enter marks the beginning of a phase everywhere it is shown. The same phase
// twice costs nothing.
func (op *operation) enter(ctx workflow.Context, phase contract.Phase) {
	op.progress.Phase = phase
	if i := slices.Index(op.phases, phase); i >= 0 {
		op.progress.Step = i + 1
	}
	if phase == contract.PhaseDone {
		op.progress.Step = op.progress.Steps
		op.progress.Waiting = ""
	}
	op.progress.Node = op.node
	op.index(ctx)
	op.show(ctx)
}

// doing is enter for steps of a growth. Beside another operation they go
// unseen: its own phase stands.
func (op *operation) doing(ctx workflow.Context, phase contract.Phase) {
	if op.progress.Operation == contract.GrowWorkflow {
		op.enter(ctx, phase)
	}
}

// wait says what the operation waits for; empty ends it.
func (op *operation) wait(ctx workflow.Context, words string) {
	op.progress.Waiting = words
	op.show(ctx)
}

// index upserts the search attributes that changed: one event or none.
func (op *operation) index(ctx workflow.Context) {
	var up []temporal.SearchAttributeUpdate
	if op.shown.Disk == "" {
		up = append(up, attrDisk.ValueSet(string(op.disk)), attrOperation.ValueSet(op.progress.Operation))
	}
	if op.shown.Node != op.progress.Node {
		up = append(up, attrNode.ValueSet(op.progress.Node))
	}
	if op.shown.Phase != op.progress.Phase {
		up = append(up, attrPhase.ValueSet(string(op.progress.Phase)))
	}
	if len(up) == 0 {
		return
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, up...); err != nil {
		workflow.GetLogger(ctx).Warn("Search attributes were not set", "error", err)
	}
	op.shown = op.progress
}

// planned notes the sizes and the disk's name where they are found later.
func (op *operation) planned(ctx workflow.Context, name string, from, to int64, reason string) {
	op.progress.FromGiB, op.progress.ToGiB = from, to
	op.result.BeforeGiB = from
	if name != "" {
		if err := workflow.UpsertTypedSearchAttributes(ctx, attrClaim.ValueSet(name)); err != nil {
			workflow.GetLogger(ctx).Warn("Search attributes were not set", "error", err)
		}
	}
	memo := map[string]any{"fromGiB": from, "toGiB": to, "reason": reason}
	if err := workflow.UpsertMemo(ctx, memo); err != nil {
		workflow.GetLogger(ctx).Warn("The memo was not set", "error", err)
	}
	op.show(ctx)
}

// show writes the details the Temporal UI shows beside the workflow. It adds no
// event to the history.
func (op *operation) show(ctx workflow.Context) {
	p := op.progress
	var b strings.Builder
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		b.WriteString(text)
	}
	line("### %s of `%s`\n\n", p.Operation, p.Disk)
	line("Step **%d of %d**: **%s**", p.Step, p.Steps, p.Phase)
	if p.Node != "" {
		line(" on node `%s`", p.Node)
	}
	b.WriteString("\n\n")
	if p.ToGiB != 0 {
		line("- backing: %d GiB to %d GiB\n", p.FromGiB, p.ToGiB)
	}
	if p.Paused {
		b.WriteString("- paused\n")
	}
	if op.signals.cancelled && !op.final {
		b.WriteString("- cancelling: everything is put back\n")
	}
	if p.Waiting != "" {
		line("- waiting: %s\n", p.Waiting)
	}
	if p.Refusal != nil {
		line("- refused: %s\n", p.Refusal.Error())
	}
	workflow.SetCurrentDetails(ctx, b.String())
}
