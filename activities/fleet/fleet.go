// Package fleet implements the activities that look at all disks and plan for
// them. It reaches EC2 through the World it is given, asks Temporal's visibility
// what runs and the workflow Budgets what may begin, and changes nothing but its own
// metrics and, for Reap, snapshots that nothing needs.
package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
)

// World is what EC2 knows.
type World interface {
	// Census counts disks by node, and what moves and modifications there are.
	// Budgets are left empty.
	Census(ctx context.Context) (fleet.Census, error)
	// DisksOn lists the disks attached to nodes, at most fleet.ShardNodes of them.
	DisksOn(ctx context.Context, nodes []string) ([]contract.DiskFacts, error)
	// Leftovers lists what the tags say nothing needs.
	Leftovers(ctx context.Context, minAge, grace, retention time.Duration) ([]contract.Leftover, error)
	// DeleteSnapshot deletes a snapshot whose tags say that Ebb made it for disk.
	DeleteSnapshot(ctx context.Context, disk contract.DiskID, snapshot string) error
}

// Operations tells which operation runs on which disk.
type Operations func(ctx context.Context) (map[contract.DiskID]Operation, error)

// Operation is one that runs.
type Operation struct {
	Type string // workflow type
	Node string // where; empty: not known
	GiB  int64  // of the backing afterwards; 0: not known
}

// Options of the activities.
type Options struct {
	World      World
	Operations Operations // nil: Temporal's visibility, through the worker's client
	// Answered tells the proposals that go on after their answer, by disk; nil: as
	// Operations.
	Answered func(ctx context.Context) (map[contract.DiskID]fleet.Proposed, error)
	// Take asks for budgets; nil: the workflow Budgets, through the worker's client.
	Take func(ctx context.Context, in fleet.Ask) (fleet.Room, error)
	// Retiring tells the volumes that a Retire workflow deletes when their grace
	// period, which may be longer than Reap's, is over; nil: as Operations.
	Retiring func(ctx context.Context) (map[string]bool, error)
	// Kept tells that somebody cancelled the Retire workflow of a retired volume:
	// Reap only reports it. Nil: Temporal is asked, unless Retiring is given.
	Kept   func(ctx context.Context, volume string) (bool, error)
	Prices plan.Prices
	Limits plan.Limits // zero: plan.DefaultLimits
	// Cluster that the disks are in, for policies.
	Cluster string
	Metrics prometheus.Registerer // nil: none
	Log     *slog.Logger
}

// Activities implements the activities of internal/fleet. Its methods are safe
// for concurrent use.
type Activities struct {
	Options
	metrics *metrics
}

// New makes the activities.
func New(o Options) *Activities {
	if o.Operations == nil {
		o.Operations = visible
	}
	if o.Answered == nil {
		o.Answered = answered
	}
	if o.Take == nil {
		o.Take = take
	}
	if o.Kept == nil && o.Retiring == nil {
		o.Kept = kept
	}
	if o.Retiring == nil {
		o.Retiring = retiring
	}
	if len(o.Limits.Types) == 0 {
		o.Limits = plan.DefaultLimits()
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Activities{Options: o, metrics: newMetrics(o.Metrics)}
}

// Register binds the activities on a worker of contract.ControlQueue.
func (a *Activities) Register(r worker.ActivityRegistry) {
	fleet.TakeCensus.Register(r, a.Census)
	fleet.TakeInventory.Register(r, a.Inventory)
	fleet.PlanDisks.Register(r, a.Plan)
	fleet.CountRunning.Register(r, a.Count)
	fleet.TakeBudget.Register(r, a.TakeBudget)
	fleet.PublishRun.Register(r, a.Publish)
	fleet.ListLeftovers.Register(r, a.Leftovers)
	fleet.DeleteSnapshot.Register(r, a.DeleteSnapshot)
}

// load reads a policy; an empty one is the defaults.
func load(text string) (*policy.Policy, error) {
	if strings.TrimSpace(text) == "" {
		return &policy.Policy{}, nil
	}
	p, err := policy.Load([]byte(text))
	if err != nil {
		return nil, contract.Refuse(contract.BadInput, "the policy has mistakes: %v", err).
			WithNext("check the document: ebb policy lint")
	}
	return p, nil
}

// Census implements fleet.TakeCensus.
func (a *Activities) Census(ctx context.Context, in fleet.CensusInput) (fleet.Census, error) {
	p, err := load(in.Policy)
	if err != nil {
		return fleet.Census{}, err
	}
	c, err := a.World.Census(ctx)
	if err != nil {
		return fleet.Census{}, err
	}
	counted, err := a.counted(ctx, c)
	if err != nil {
		return fleet.Census{}, err
	}
	c.Running, c.Budgets = counted.Running(), p.Budgets
	return c, nil
}

// Inventory implements fleet.TakeInventory.
func (a *Activities) Inventory(ctx context.Context, in fleet.InventoryInput) (fleet.Inventory, error) {
	p, err := load(in.Policy)
	if err != nil {
		return fleet.Inventory{}, err
	}
	disks, err := a.World.DisksOn(ctx, in.Nodes)
	if err != nil {
		return fleet.Inventory{}, err
	}
	slices.SortFunc(disks, func(x, y contract.DiskFacts) int { return strings.Compare(string(x.Disk), string(y.Disk)) })
	var out fleet.Inventory
	index := map[string]int{}
	for _, d := range disks {
		f := plan.FactsOf(contract.DiskReport{Facts: d})
		if len(f.Volumes) == 0 {
			continue // nothing but leftovers
		}
		f.Cluster = a.Cluster
		r := RuleFor(p, f, in.Switches)
		key := r.Name + "\x00" + string(r.Mode)
		n, known := index[key]
		if !known {
			n = len(out.Rules)
			index[key] = n
			out.Rules = append(out.Rules, r)
		}
		e := fleet.Entry{Facts: f, Rule: n}
		for _, x := range in.Extras {
			if x.Disk == f.Disk && x.Until.After(in.Now) {
				e.ExtraBytes += x.Bytes
				if x.Until.After(e.ExtraUntil) {
					e.ExtraUntil = x.Until
				}
			}
		}
		if r.Mode == plan.Enforce {
			e.Guide = guide(r, e, in.Settings)
		}
		e.Facts.Tags, e.Facts.Labels = nil, nil // nobody needs them any more
		out.Disks = append(out.Disks, e)
	}
	return out, nil
}

// RuleFor is what holds for a disk: the policy, and the last switch that selects
// the disk.
func RuleFor(p *policy.Policy, f plan.Facts, switches []contract.Switch) plan.Rule {
	r, _ := p.For(f)
	for _, s := range switches {
		if fleet.Selects(s, f, r) {
			r.Mode = s.Mode
		}
	}
	return r
}

func guide(r plan.Rule, e fleet.Entry, base contract.Settings) *contract.Guide {
	return &contract.Guide{
		HeadroomBytes: r.HeadroomBytes, HeadroomPercent: r.HeadroomPercent, HeadroomTime: r.HeadroomTime,
		ExtraBytes: e.ExtraBytes, ExtraUntil: e.ExtraUntil,
		CeilingGiB: r.CeilingGiB, FailAtCeiling: r.AtCeiling == plan.AtCeilingFail,
		Settings: fleet.SettingsOf(r, base),
	}
}

// Leftovers implements fleet.ListLeftovers.
func (a *Activities) Leftovers(ctx context.Context, in contract.ReapInput) (fleet.Leftovers, error) {
	def := func(d, otherwise time.Duration) time.Duration {
		if d == 0 {
			return otherwise
		}
		return d
	}
	found, err := a.World.Leftovers(ctx, def(in.MinAge, contract.DefaultReapAge), def(in.Grace, contract.DefaultGrace), def(in.SnapshotRetention, contract.DefaultRetention))
	if err != nil {
		return fleet.Leftovers{}, err
	}
	retiring, err := a.Retiring(ctx)
	if err != nil {
		return fleet.Leftovers{}, fmt.Errorf("which volumes wait to be deleted: %w", err)
	}
	found = slices.DeleteFunc(found, func(l contract.Leftover) bool { return l.Volume != "" && retiring[l.Volume] })
	const most = 1000
	out := fleet.Leftovers{Leftovers: found, More: len(found) > most}
	out.Leftovers = found[:min(len(found), most)]
	for i := range out.Leftovers {
		l := &out.Leftovers[i]
		if l.Suspect || l.Role != contract.RoleRetired || l.Volume == "" || a.Kept == nil {
			continue
		}
		if keep, err := a.Kept(ctx, l.Volume); err != nil {
			return fleet.Leftovers{}, err
		} else if keep {
			l.Suspect, l.Reason = true, l.Reason+", but its Retire workflow was cancelled to keep it"
		}
	}
	return out, nil
}

// DeleteSnapshot implements fleet.DeleteSnapshot.
func (a *Activities) DeleteSnapshot(ctx context.Context, in fleet.DeleteSnapshotInput) (struct{}, error) {
	return struct{}{}, a.World.DeleteSnapshot(ctx, in.Disk, in.Snapshot)
}
