package chaos

import (
	"math/rand/v2"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// operation is what a scenario disturbs.
type operation string

const (
	shrinkOp operation = "Shrink"
	growOp   operation = "Grow"
	// appendOp is a Grow that EC2 does not let modify the volume: it appends one.
	appendOp operation = "Grow by a volume"
	// foldOp is a Shrink of a disk on two volumes to one.
	foldOp operation = "Shrink of two volumes"
	// pressureOp is a Grow that the agent starts because the writer fills the disk.
	pressureOp operation = "Grow by itself"
	// pressureAppendOp is one that appends a volume.
	pressureAppendOp operation = "Grow by a volume by itself"
)

// shrinks says that the operation is a move.
func (o operation) shrinks() bool { return o == shrinkOp || o == foldOp }

// byItself says that the agent starts the operation.
func (o operation) byItself() bool { return o == pressureOp || o == pressureAppendOp }

// appends says that EC2 does not let the volume be modified.
func (o operation) appends() bool { return o == appendOp || o == pressureAppendOp }

func (o operation) workflow() string {
	if o.shrinks() {
		return contract.ShrinkWorkflow
	}
	return contract.GrowWorkflow
}

// steps are the activities of an operation, each the boundary of a step.
func (o operation) steps() []string {
	switch o {
	case shrinkOp:
		return []string{
			string(contract.DescribeDisk), string(contract.TrimDisk), string(contract.DescribeNode), string(contract.WaitForBackups),
			string(contract.SnapshotDisk), string(contract.CreateVolume), string(contract.AttachVolume), string(contract.PrepareMove),
			string(contract.EvacuateDisk), string(contract.VerifyMove), string(contract.CommitMove), string(contract.TagVolume),
			string(contract.RetireBacking), string(contract.DetachVolume),
		}
	case foldOp: // those that have to do with the old volumes
		return []string{
			string(contract.SnapshotDisk), string(contract.PrepareMove), string(contract.EvacuateDisk), string(contract.CommitMove),
			string(contract.TagVolume), string(contract.RetireBacking), string(contract.DetachVolume),
		}
	case appendOp:
		return []string{
			string(contract.CreateVolume), string(contract.AttachVolume), string(contract.AppendVolume), string(contract.TagVolume),
		}
	}
	return []string{string(contract.DescribeDisk), string(contract.MeasureDisk), string(contract.ModifyVolume), string(contract.GrowBacking)}
}

// actions are the EC2 calls an operation makes.
func (o operation) actions() []string {
	switch o {
	case shrinkOp:
		return []string{
			"DescribeVolumes", "DescribeInstances", "DescribeInstanceTypes", "DescribeSnapshots", "CreateSnapshot",
			"CreateVolume", "AttachVolume", "CreateTags", "DetachVolume", "DeleteVolume",
		}
	case foldOp:
		return []string{"CreateSnapshots", "CreateTags", "DetachVolume", "DeleteVolume"}
	case appendOp, pressureAppendOp:
		return []string{"CreateVolume", "AttachVolume", "CreateTags"}
	}
	return []string{"DescribeVolumes", "ModifyVolume", "DescribeVolumesModifications", "CreateTags"}
}

// changes are those of actions that change something before the operation's end.
func (o operation) changes() []string {
	switch o {
	case shrinkOp:
		return []string{"CreateSnapshot", "CreateVolume", "AttachVolume", "CreateTags", "DetachVolume"}
	case foldOp:
		return []string{"CreateSnapshots", "DetachVolume"}
	case appendOp:
		return []string{"CreateVolume", "AttachVolume", "CreateTags"}
	}
	return []string{"ModifyVolume"}
}

// lasts is about how long an undisturbed operation takes.
func (o operation) lasts() time.Duration {
	if o.shrinks() {
		return 15 * time.Second
	}
	return 3 * time.Second
}

// scenario is one disturbed operation.
type scenario struct {
	number int // its place in the list; chooses the filesystem
	op     operation
	what   strike
	when   moment // of what.do
	// want are the outcomes that are right; none means done.
	want outcomes
	// refusal is the code of one that is right; none means NodeUnknown.
	refusal contract.RefusalCode
	// ends, when set, is the step that a refusal must come from.
	ends string
}

// outcomes are those that are right.
type outcomes []contract.Outcome

// ifDies is for a moment at which EC2 may be asked to attach a volume to a node
// that has died before anyone says where the disk is to go: it refuses.
func (o outcomes) ifDies(what strike) outcomes {
	if what.name == nodeDies.name {
		return o
	}
	return nil
}

func (sc scenario) String() string {
	s := string(sc.op) + ": " + sc.what.name
	if sc.when != nil {
		s += " " + sc.when.String()
	}
	return s
}

// inCopy says whether the moment may lie within a move's copy.
func (sc scenario) inCopy() bool {
	switch m := sc.when.(type) {
	case copied, at:
		return true
	case before:
		return m.activity == string(contract.EvacuateDisk)
	}
	return false
}

func (sc scenario) outcomes() outcomes {
	if len(sc.want) == 0 {
		return outcomes{contract.Done}
	}
	return sc.want
}

func (sc scenario) code() contract.RefusalCode {
	if sc.refusal == "" {
		return contract.NodeUnknown
	}
	return sc.refusal
}

var (
	refused   = outcomes{contract.Refused}
	cancelled = outcomes{contract.Cancelled}
	rejected  = outcomes{contract.Refused, contract.Done}
	either    = outcomes{contract.Cancelled, contract.Done}
)

// short is the fixed part that every test run plays.
func short() []scenario {
	return []scenario{
		{op: shrinkOp, what: powerCut, when: copied(0.4)},
		{op: shrinkOp, what: agentKill, when: copied(0.4)},
		{op: shrinkOp, what: failsAfter("CreateVolume")},
		{op: shrinkOp, what: temporalRestart, when: copied(0.4)},
		{op: shrinkOp, what: cancelIt, when: copied(0.4), want: cancelled},
		{op: shrinkOp, what: workerKill, when: before{activity: string(contract.CommitMove)}},
		{op: growOp, what: temporalRestart, when: before{activity: string(contract.GrowBacking)}},
		{op: appendOp, what: failsAfter("AttachVolume")},
		{op: shrinkOp, what: newFailsWrites, when: copied(0.4), want: refused, refusal: contract.MoveFailed, ends: string(contract.EvacuateDisk)},
		{op: pressureOp, what: outage("DescribeVolumes"), when: diskFull{}},
	}
}

// full is the whole matrix. The seed decides the moments between the steps.
func full(seed uint64) []scenario {
	rng := rand.New(rand.NewPCG(seed, 0))
	var out []scenario
	for _, op := range []operation{shrinkOp, growOp, appendOp, foldOp} {
		strikes := []strike{agentKill, workerKill, temporalRestart, powerCut, nodeDies}
		for _, what := range strikes {
			for _, step := range op.steps() {
				sc := scenario{op: op, what: what, when: before{activity: step}}
				if step == string(contract.CreateVolume) || step == string(contract.AttachVolume) {
					sc.want = rejected.ifDies(what)
				}
				out = append(out, sc)
			}
		}
		moments := 3
		if op == foldOp { // as shrinkOp, but for the steps above
			moments = 1
		}
		for _, what := range append(strikes, everything) {
			for range moments {
				out = append(out, scenario{op: op, what: what, want: rejected.ifDies(what), when: at(time.Duration(rng.Int64N(int64(op.lasts()))).Round(time.Millisecond))})
			}
		}
		for _, how := range []weather{failsBefore, failsAfter, throttled, answerLost} {
			out = append(out, scenario{op: op, what: often(how)})
		}
		out = append(out, calls(op)...)
		for _, action := range op.changes() {
			out = append(out, scenario{op: op, what: workerKill, when: inCall(action)}, scenario{op: op, what: everything, when: inCall(action)})
		}
		if op == shrinkOp || op == appendOp {
			out = append(out, scenario{op: op, what: vanishes})
		}
	}
	for range 6 {
		out = append(out, scenario{op: shrinkOp, what: storm(rng.Uint64N(1000)), when: at(time.Duration(rng.Int64N(int64(3 * time.Second))).Round(time.Millisecond))})
	}
	out = append(out, swaps(rng)...)
	for _, what := range []strike{agentKill, workerKill, temporalRestart, temporalAway, powerCut, everything} {
		for _, step := range pressureOp.steps()[1:] {
			out = append(out, scenario{op: pressureOp, what: what, when: before{activity: step}})
		}
	}
	out = append(out, cancels()...)
	out = append(out, calls(pressureOp)...)
	out = append(out, calls(pressureAppendOp)...)
	for _, op := range []operation{pressureOp, pressureAppendOp} {
		out = append(out, scenario{op: op, what: outage(op.actions()[0]), when: diskFull{}})
	}
	return append(out, failing()...)
}

// calls makes each of an operation's EC2 calls go wrong in each way.
func calls(op operation) []scenario {
	var out []scenario
	for _, action := range op.actions() {
		for _, how := range []weather{failsBefore, failsAfter, throttled, late, answerLost} {
			out = append(out, scenario{op: op, what: how(action)})
		}
	}
	return out
}

// failing breaks a move's volumes below the filesystem. The move is refused, and
// the disk is where it was.
func failing() []scenario {
	var out []scenario
	add := func(op operation, what strike, when moment, code contract.RefusalCode, ends string) {
		out = append(out, scenario{op: op, what: what, when: when, want: refused, refusal: code, ends: ends})
	}
	for _, op := range []operation{shrinkOp, foldOp} {
		add(op, newFailsWrites, copied(0.4), contract.MoveFailed, string(contract.EvacuateDisk))
		add(op, newFails, copied(0.4), contract.MoveFailed, string(contract.EvacuateDisk))
	}
	// All is copied: it is being compared.
	add(shrinkOp, newFailsWrites, copied(1), contract.MoveFailed, string(contract.EvacuateDisk))
	add(shrinkOp, newFails, copied(1), contract.MoveFailed, string(contract.EvacuateDisk))
	add(shrinkOp, newUnreadable, copied(0.4), contract.MoveFailed, string(contract.EvacuateDisk))
	add(shrinkOp, oldUnreadable, copied(0.2), contract.VolumeFailing, string(contract.EvacuateDisk))
	return out
}

// swaps strikes within the short steps that change headers and tables.
func swaps(rng *rand.Rand) []scenario {
	var out []scenario
	for _, step := range []string{string(contract.PrepareMove), string(contract.EvacuateDisk), string(contract.CommitMove), string(contract.RetireBacking)} {
		for _, what := range []strike{agentKill, powerCut, nodeDies} {
			for range 2 {
				plus := time.Duration(rng.Int64N(int64(400 * time.Millisecond))).Round(time.Millisecond)
				out = append(out, scenario{op: shrinkOp, what: what, when: before{step, plus}})
			}
		}
	}
	return append(out,
		scenario{op: shrinkOp, what: powerCut, when: copied(0.5)},
		scenario{op: shrinkOp, what: nodeDies, when: copied(0.5)},
		scenario{op: shrinkOp, what: agentKill, when: copied(0.5)})
}

// cancels asks a Shrink to stop at every step. After the commit it goes on.
func cancels() []scenario {
	var out []scenario
	want := cancelled
	for _, step := range shrinkOp.steps() {
		switch step {
		case string(contract.CommitMove):
			want = either
		case string(contract.TagVolume):
			want = nil
		}
		out = append(out, scenario{op: shrinkOp, what: cancelIt, when: before{activity: step}, want: want})
	}
	return out
}

// refuseModify makes a Grow append a volume.
var refuseModify = ec2sim.Fault{ID: "refuse-modify", Action: "ModifyVolume", Code: "VolumeModificationRateExceeded", Count: -1}
