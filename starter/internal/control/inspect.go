package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

const (
	// askTimeout bounds a read-only workflow as a whole.
	askTimeout = 90 * time.Second
	// workerCheck is when a missing answer makes us ask whether a worker exists.
	workerCheck = 3 * time.Second
	// lookTries and lookPause are how long EC2 is given to show an attachment.
	lookTries = 4
	lookPause = time.Second
)

// Disk is a disk as far as a command knows it.
type Disk struct {
	ID   contract.DiskID
	Name string // "" when unknown
	Node string // "" when unknown or detached
}

// String names the disk in a sentence.
func (d Disk) String() string {
	if d.Name == "" {
		return string(d.ID)
	}
	return d.Name + " (" + string(d.ID) + ")"
}

// Ref is what to type for the disk on a command line.
func (d Disk) Ref() string {
	if d.Name == "" {
		return string(d.ID)
	}
	return d.Name
}

// Inspect reads disks through the control worker.
func (c *Client) Inspect(ctx context.Context, in contract.InspectInput) ([]contract.DiskReport, error) {
	var out contract.InspectResult
	if err := c.ask(ctx, contract.InspectWorkflow, in, &out); err != nil {
		return nil, err
	}
	if out.Refusal != nil {
		return nil, exit.Refusal(out.Refusal)
	}
	return out.Disks, nil
}

// NodeOf is the node EC2 has a disk attached to, "" when to none. When that is
// not the one expected it looks again for a few seconds: EC2's describes lag.
func (c *Client) NodeOf(ctx context.Context, d Disk, expected string) (string, error) {
	for try := 1; ; try++ {
		reports, err := c.Inspect(ctx, contract.InspectInput{Disk: d.ID, FactsOnly: true})
		if err != nil || len(reports) == 0 {
			return "", err
		}
		is := reports[0].Facts.Node()
		if is == expected || try == lookTries {
			return is, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(lookPause):
		}
	}
}

// Preflight asks a node's agent whether Ebb can run there.
func (c *Client) Preflight(ctx context.Context, node string) (contract.PreflightResult, error) {
	var out contract.PreflightNodeResult
	if err := c.ask(ctx, contract.PreflightWorkflow, contract.PreflightNodeInput{Node: node}, &out); err != nil {
		return contract.PreflightResult{}, err
	}
	switch {
	case out.Refusal != nil:
		return contract.PreflightResult{}, exit.Refusal(out.Refusal)
	case out.Preflight == nil:
		return contract.PreflightResult{}, exit.New(exit.Failed, "node %s gave an empty answer", node)
	}
	return *out.Preflight, nil
}

// ask runs a read-only workflow.
func (c *Client) ask(ctx context.Context, workflow string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	run, err := c.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       strings.ToLower(workflow) + "/" + newToken(),
		TaskQueue:                contract.ControlQueue,
		WorkflowExecutionTimeout: askTimeout,
		StaticSummary:            "asked by " + c.identity,
	}, workflow, in)
	if err != nil {
		return c.callError("start "+workflow, err)
	}

	result := make(chan error, 1)
	go func() { result <- run.Get(ctx, out) }() // ends with ctx at the latest
	check := time.NewTimer(workerCheck)
	defer check.Stop()
	for {
		select {
		case err := <-result:
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return c.callError(strings.ToLower(workflow), err)
		case <-check.C:
			if ok, err := c.HasWorker(ctx); err == nil && !ok {
				return errNoWorker()
			}
		}
	}
}

// Resolve finds the disk that ref names: its id, its name, or the beginning of
// its id if no other begins so. A whole id is taken as it is, without looking.
func (c *Client) Resolve(ctx context.Context, ref string) (Disk, error) {
	if contract.DiskID(ref).Validate() == nil {
		return Disk{ID: contract.DiskID(ref)}, nil
	}
	if err := checkRef(ref); err != nil {
		return Disk{}, err
	}
	fleet, err := c.Fleet(ctx)
	if err != nil {
		return Disk{}, err
	}
	// A disk being created has no volume yet, but an operation.
	running, err := c.AllRunning(ctx)
	if err != nil {
		return Disk{}, err
	}
	known := disks(running)
	for _, f := range fleet.Disks {
		known = append(known, Disk{ID: f.Disk, Name: f.Name, Node: f.Node})
	}
	d, ok, err := match(ref, known)
	if err == nil && !ok {
		err = exit.New(exit.NotFound, "no disk is named %q", ref).WithNext("ebb disk list")
	}
	return d, err
}

// ResolveRunning is Resolve for commands that speak to a running operation:
// it looks at those first.
func (c *Client) ResolveRunning(ctx context.Context, ref string) (Disk, error) {
	if contract.DiskID(ref).Validate() == nil {
		return Disk{ID: contract.DiskID(ref)}, nil
	}
	if err := checkRef(ref); err != nil {
		return Disk{}, err
	}
	running, err := c.AllRunning(ctx)
	if err != nil {
		return Disk{}, err
	}
	if d, ok, err := match(ref, disks(running)); ok || err != nil {
		return d, err
	}
	return c.Resolve(ctx, ref)
}

func disks(running map[contract.DiskID]Running) []Disk {
	out := make([]Disk, 0, len(running))
	for _, r := range running {
		out = append(out, r.Disk)
	}
	return out
}

// checkRef refuses what can be neither a name nor the beginning of an id.
func checkRef(ref string) error {
	if err := contract.ValidateName(ref); err != nil && ref != "d-" {
		return exit.New(exit.Usage, "disk %q: want its id, its name, or the beginning of its id", ref)
	}
	return nil
}

// match finds ref among disks: an exact name wins over the beginning of an id.
func match(ref string, known []Disk) (Disk, bool, error) {
	byID := map[contract.DiskID]Disk{}
	for _, d := range known {
		have := byID[d.ID]
		if d.Name == "" {
			d.Name = have.Name
		}
		if d.Node == "" {
			d.Node = have.Node
		}
		byID[d.ID] = d
	}
	var named, begun []Disk
	for _, d := range byID {
		switch {
		case d.Name == ref:
			named = append(named, d)
		case strings.HasPrefix(ref, "d-") && strings.HasPrefix(string(d.ID), ref):
			begun = append(begun, d)
		}
	}
	found := named
	if len(found) == 0 {
		found = begun
	}
	switch len(found) {
	case 0:
		return Disk{}, false, nil
	case 1:
		return found[0], true, nil
	}
	var all []string
	for _, d := range found {
		all = append(all, d.String())
	}
	slices.Sort(all)
	return Disk{}, false, exit.New(exit.Usage, "%q may be any of %s", ref, strings.Join(all, ", ")).WithNext("type the id")
}
