package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

func TestRetype(t *testing.T) {
	const vol = "vol-00000001"
	shape := func(w *world) []any { v := w.vols[vol]; return []any{v.SizeGiB, v.Type, v.IOPS, v.ThroughputMiBs} }
	as := func(typ string, iops, mibs int32) *world {
		w := made(t)
		v := w.vols[vol]
		v.Type, v.IOPS, v.ThroughputMiBs = typ, iops, mibs
		return w
	}
	for name, tt := range map[string]struct {
		typ        string
		iops, mibs int32
		in         contract.RetypeInput
		want       []any
		refusal    contract.RefusalCode
		words      string
	}{
		"gp2 to gp3":            {"gp2", 100, 0, contract.RetypeInput{Type: "gp3"}, []any{int64(20), "gp3", int32(3000), int32(128)}, "", ""},
		"gp2, more of it":       {"gp2", 100, 0, contract.RetypeInput{IOPS: 5000}, []any{int64(20), "gp3", int32(5000), int32(128)}, "", ""},
		"more":                  {"gp3", 3000, 125, contract.RetypeInput{IOPS: 6000, ThroughputMiBs: 250}, []any{int64(20), "gp3", int32(6000), int32(250)}, "", ""},
		"less":                  {"gp3", 6000, 250, contract.RetypeInput{IOPS: 3000, ThroughputMiBs: 125}, []any{int64(20), "gp3", int32(3000), int32(125)}, "", ""},
		"gp3 to io2":            {"gp3", 6000, 250, contract.RetypeInput{Type: "io2"}, []any{int64(20), "io2", int32(6000), int32(0)}, "", ""},
		"io2 to gp3":            {"io2", 3000, 0, contract.RetypeInput{Type: "gp3"}, []any{int64(20), "gp3", int32(3000), int32(750)}, "", ""},
		"io2 to gp3, less":      {"io2", 3000, 0, contract.RetypeInput{Type: "gp3", ThroughputMiBs: 125}, []any{int64(20), "gp3", int32(3000), int32(125)}, "", ""},
		"as it is":              {"gp3", 3000, 125, contract.RetypeInput{Type: "gp3"}, nil, contract.NothingToRetype, "the volume is gp3 with 3000 IOPS and 125 MiB/s already"},
		"as it is, io2":         {"io2", 3000, 0, contract.RetypeInput{IOPS: 3000}, nil, contract.NothingToRetype, "already"},
		"too much for its size": {"gp3", 3000, 125, contract.RetypeInput{IOPS: 16000}, nil, contract.SizeLimit, "a gp3 volume of 20 GiB gives at most 10000 IOPS"},
		"st1":                   {"st1", 0, 0, contract.RetypeInput{Type: "gp3"}, nil, contract.SizeLimit, "a st1 volume is not changed in place"},
		"io2 has no throughput": {"io2", 3000, 0, contract.RetypeInput{ThroughputMiBs: 200}, nil, contract.BadInput, "no throughput to set"},
		"nothing":               {"gp3", 3000, 125, contract.RetypeInput{}, nil, contract.BadInput, "want a type, iops or throughputMiBs"},
		"a type there is not":   {"gp3", 3000, 125, contract.RetypeInput{Type: "gp4"}, nil, contract.BadInput, "want gp2, gp3, io1 or io2"},
		"a throughput of io2":   {"gp3", 3000, 125, contract.RetypeInput{Type: "io2", ThroughputMiBs: 200}, nil, contract.BadInput, "only gp3 has any to set"},
		"IOPS of gp2":           {"gp3", 3000, 125, contract.RetypeInput{Type: "gp2", IOPS: 200}, nil, contract.BadInput, "come from its size"},
		"less than nothing":     {"gp3", 3000, 125, contract.RetypeInput{IOPS: -1}, nil, contract.BadInput, "0 (keep) or more"},
	} {
		t.Run(name, func(t *testing.T) {
			w := as(tt.typ, tt.iops, tt.mibs)
			tt.in.Disk = disk
			r := w.run(contract.RetypeWorkflow, tt.in)
			if tt.refusal != "" {
				require.Equal(t, contract.Refused, r.Outcome)
				require.Equal(t, tt.refusal, r.Refusal.Code)
				if len(w.calls) > 0 {
					require.Equal(t, disk, r.Refusal.Disk)
				}
				require.Contains(t, r.Refusal.Message, tt.words)
				require.NotEmpty(t, r.Refusal.Next)
				require.Zero(t, w.count("ModifyVolume"), "what changes nothing spends one, too")
				return
			}
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			require.Equal(t, tt.want, shape(w))
			require.Equal(t, []any{int64(20), int64(20), []string{vol}}, []any{r.BeforeGiB, r.AfterGiB, r.Volumes})
			require.Equal(t, []string{"DescribeDisk", "ModifyVolume"}, w.calls, "no node has a part in it")
			w.intact(nodeA)
		})
	}
	t.Run("dry run", func(t *testing.T) {
		w := as("gp2", 100, 0)
		r := w.run(contract.RetypeWorkflow, contract.RetypeInput{Disk: disk, Type: "gp3", DryRun: true})
		require.Equal(t, contract.Planned, r.Outcome)
		require.Contains(t, r.Steps[0], "modify volume vol-00000001 in place: 20 GiB of gp2 become gp3 with 3000 IOPS and 128 MiB/s")
		require.Zero(t, w.count("ModifyVolume"))
	})
	t.Run("several volumes", func(t *testing.T) {
		w := made(t)
		w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "no")
		w.use(19 * contract.GiB)
		require.Len(t, w.run(contract.GrowWorkflow, contract.GrowInput{Disk: disk}).Volumes, 2)
		w.newEnv()
		r := w.run(contract.RetypeWorkflow, contract.RetypeInput{Disk: disk, IOPS: 5000})
		require.Equal(t, contract.BadInput, r.Refusal.Code)
		require.Contains(t, r.Refusal.Next, "ebb shrink")
		require.Zero(t, w.count("ModifyVolume"))
	})
	t.Run("EBS refuses", func(t *testing.T) {
		w := made(t)
		w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "four of a day are spent").WithVolume(vol)
		r := w.run(contract.RetypeWorkflow, contract.RetypeInput{Disk: disk, IOPS: 5000})
		require.Equal(t, contract.ModificationLimit, r.Refusal.Code)
		w.intact(nodeA)
	})
	// EBS is busy with the change when the disk fills: another volume.
	t.Run("pressure", func(t *testing.T) {
		w := made(t)
		w.use(19 * contract.GiB)
		modified := 0
		w.hook = func(name string, _ int, after bool) error {
			switch {
			case name != "ModifyVolume" || after:
			case modified == 0:
				modified++
				w.env.SignalWorkflow(contract.SignalPressure, contract.Pressure{Node: nodeA, Generation: 1, BackingBytes: 20 * contract.GiB})
			default:
				return contract.Refuse(contract.ModificationLimit, "it is being modified")
			}
			return nil
		}
		r := w.run(contract.RetypeWorkflow, contract.RetypeInput{Disk: disk, IOPS: 5000})
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, []any{int64(20), "gp3", int32(5000), int32(125)}, shape(w))
		require.Len(t, w.vols, 2, "%v", w.calls)
		w.intact(nodeA)
	})
	// Attached nowhere: EBS changes it all the same.
	t.Run("detached", func(t *testing.T) {
		w := made(t)
		w.vols[vol].Node = ""
		r := w.run(contract.RetypeWorkflow, contract.RetypeInput{Disk: disk, IOPS: 5000})
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	})
	// Any call may fail, or have its effect and fail: the volume is as asked for.
	for _, after := range []bool{false, true} {
		for n := range 2 {
			w := made(t)
			failed := false
			w.hook = func(_ string, at int, isAfter bool) error {
				if at == n+1 && isAfter == after && !failed {
					failed = true
					return temporal.NewApplicationError("injected", "Injected", errors.New("x"))
				}
				return nil
			}
			r := w.run(contract.RetypeWorkflow, contract.RetypeInput{Disk: disk, IOPS: 5000})
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			require.Equal(t, []any{int64(20), "gp3", int32(5000), int32(125)}, shape(w))
		}
	}
}

// A proposal may be one of a change in place; of several operations none is begun.
func TestProposeRetype(t *testing.T) {
	w := made(t)
	d := plan.Decision{Disk: disk, Wanted: plan.Retype, GiB: 20, FromGiB: 20, Reason: "cheaper"}
	in := fleet.Proposal{Decision: d, Workflow: contract.RetypeWorkflow, Expiry: time.Hour, Retype: &contract.RetypeInput{Disk: disk, IOPS: 5000}}
	w.env.RegisterDelayedCallback(func() {
		w.env.UpdateWorkflow(contract.UpdateApprove, "1", &answers{}, fleet.Answer{By: "ann"})
	}, time.Minute)
	w.env.ExecuteWorkflow(contract.ProposeWorkflow, in)
	require.NoError(t, w.env.GetWorkflowError())
	var p fleet.Proposed
	require.NoError(t, w.env.GetWorkflowResult(&p))
	require.Equal(t, contract.Done, p.Outcome.Outcome)
	require.EqualValues(t, 5000, w.vols["vol-00000001"].IOPS)

	w.newEnv()
	in.Grow = &contract.GrowInput{Disk: disk}
	w.env.ExecuteWorkflow(contract.ProposeWorkflow, in)
	require.ErrorContains(t, w.env.GetWorkflowError(), "either a grow, a shrink or a retype")
}
