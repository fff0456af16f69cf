package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/workflows"
)

const (
	inspectDiskA = contract.DiskID("d-0000000000000000a")
	inspectDiskB = contract.DiskID("d-0000000000000000b")
	inspectNodeA = "i-0000000000000000a"
	inspectNodeB = "i-0000000000000000b"
)

func inspectEnv(t *testing.T) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	workflows.RegisterInspect(env)
	contract.ListDisks.Register(env, func(context.Context, contract.ListDisksInput) (contract.ListDisksResult, error) {
		return contract.ListDisksResult{Disks: []contract.DiskFacts{
			inspectFacts(inspectDiskB, inspectNodeB), inspectFacts(inspectDiskA, inspectNodeA), inspectFacts("d-0000000000000000c", ""),
		}}, nil
	})
	contract.DescribeDisk.Register(env, func(_ context.Context, in contract.DescribeDiskInput) (contract.DiskFacts, error) {
		if in.Disk == inspectDiskA {
			return inspectFacts(inspectDiskA, inspectNodeA), nil
		}
		return contract.DiskFacts{Disk: in.Disk}, nil
	})
	contract.MeasureDisk.Register(env, func(_ context.Context, in contract.MeasureDiskInput) (contract.Measurement, error) {
		return contract.Measurement{Disk: in.Disk, SizeBytes: contract.GiB}, nil
	})
	contract.ReadHistory.Register(env, func(_ context.Context, in contract.ReadHistoryInput) (contract.ReadHistoryResult, error) {
		return contract.ReadHistoryResult{Hours: []contract.HistoryHour{{Hour: in.Since, UsedMaxBytes: contract.GiB}}}, nil
	})
	contract.Preflight.Register(env, func(context.Context, contract.PreflightInput) (contract.PreflightResult, error) {
		return contract.PreflightResult{Node: inspectNodeA, OK: true}, nil
	})
	return env
}

func inspectFacts(d contract.DiskID, node string) contract.DiskFacts {
	return contract.DiskFacts{Disk: d, Volumes: []contract.VolumeFacts{{
		ID: "vol-00000001", Role: contract.RoleActive, Generation: 1, Node: node, Tags: map[string]string{"team": "a"},
	}}}
}

func inspectResult(t *testing.T, env *testsuite.TestWorkflowEnvironment, in contract.InspectInput) contract.InspectResult {
	t.Helper()
	env.ExecuteWorkflow(contract.InspectWorkflow, in)
	require.NoError(t, env.GetWorkflowError())
	var out contract.InspectResult
	require.NoError(t, env.GetWorkflowResult(&out))
	return out
}

func TestInspectListsAllAndADeadNodeDelaysNobody(t *testing.T) {
	env := inspectEnv(t)
	env.OnActivity(string(contract.MeasureDisk), mock.Anything, contract.MeasureDiskInput{Disk: inspectDiskB}).
		Return(contract.Measurement{}, temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil))
	env.OnActivity(string(contract.MeasureDisk), mock.Anything, contract.MeasureDiskInput{Disk: inspectDiskA}).
		Return(contract.Measurement{Disk: inspectDiskA, SizeBytes: contract.GiB}, nil)
	env.SetTestTimeout(10 * time.Second)

	out := inspectResult(t, env, contract.InspectInput{})

	require.Nil(t, out.Refusal)
	require.Len(t, out.Disks, 3)
	require.Equal(t, inspectDiskA, out.Disks[0].Facts.Disk)
	require.NotNil(t, out.Disks[0].Measurement)
	require.Nil(t, out.Disks[0].Facts.Volumes[0].Tags)
	require.Nil(t, out.Disks[1].Measurement)
	require.Contains(t, out.Disks[1].Unmeasured, "no agent answers on node "+inspectNodeB)
	require.Equal(t, "not attached to a node", out.Disks[2].Unmeasured)
}

func TestInspectOneDisk(t *testing.T) {
	out := inspectResult(t, inspectEnv(t), contract.InspectInput{Disk: inspectDiskA})
	require.Len(t, out.Disks, 1)
	require.Equal(t, "a", out.Disks[0].Facts.Volumes[0].Tags["team"])
	require.Equal(t, contract.GiB, out.Disks[0].Measurement.SizeBytes)
}

func TestInspectHistory(t *testing.T) {
	since := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	in := contract.InspectInput{Disk: inspectDiskA, History: true, Since: since}
	out := inspectResult(t, inspectEnv(t), in)
	require.Len(t, out.Disks, 1)
	require.NotNil(t, out.Disks[0].Measurement)
	require.Equal(t, []contract.HistoryHour{{Hour: since, UsedMaxBytes: contract.GiB}}, out.Disks[0].History.Hours)

	// Nobody is asked who was not to be.
	env := inspectEnv(t)
	env.OnActivity(string(contract.ReadHistory), mock.Anything, mock.Anything).Never()
	out = inspectResult(t, env, contract.InspectInput{Disk: inspectDiskA})
	require.Nil(t, out.Disks[0].History)
	require.Empty(t, out.Disks[0].Unread)

	// An agent that does not answer is not a history without hours.
	env = inspectEnv(t)
	env.OnActivity(string(contract.ReadHistory), mock.Anything, mock.Anything).
		Return(contract.ReadHistoryResult{}, temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil))
	out = inspectResult(t, env, in)
	require.Contains(t, out.Disks[0].Unread, "no agent answers on node "+inspectNodeA)

	env = inspectEnv(t)
	env.OnActivity(string(contract.DescribeDisk), mock.Anything, mock.Anything).Return(inspectFacts(inspectDiskA, ""), nil)
	out = inspectResult(t, env, in)
	require.Equal(t, "not attached to a node", out.Disks[0].Unread)

	out = inspectResult(t, inspectEnv(t), contract.InspectInput{History: true})
	require.Equal(t, contract.BadInput, out.Refusal.Code)
}

// Disks of one node are asked for in one call.
func TestInspectSomeDisks(t *testing.T) {
	since := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	hours := []contract.HistoryHour{{Hour: since, UsedMaxBytes: contract.GiB}}
	in := contract.InspectInput{Node: inspectNodeA, Disks: []contract.DiskID{inspectDiskA, "d-0000000000000000e", inspectDiskB}, History: true, Since: since}
	const third = contract.DiskID("d-0000000000000000d")
	facts := contract.ListDisksResult{Disks: []contract.DiskFacts{
		inspectFacts(inspectDiskA, inspectNodeA), inspectFacts(inspectDiskB, inspectNodeA), inspectFacts(third, inspectNodeA),
	}}
	ask := func(answer contract.SurveyResult, err error) contract.InspectResult {
		t.Helper()
		env := inspectEnv(t)
		want := contract.SurveyInput{Disks: []contract.SurveyDisk{{Disk: inspectDiskA}, {Disk: inspectDiskB}}, Hours: true, Since: since}
		contract.SurveyNode.Register(env, func(_ context.Context, in contract.SurveyInput) (contract.SurveyResult, error) {
			require.Equal(t, want, in)
			return answer, err
		})
		env.OnActivity(string(contract.ListDisks), mock.Anything, contract.ListDisksInput{Node: inspectNodeA, Nodes: []string{inspectNodeA}}).Return(facts, nil)
		return inspectResult(t, env, in)
	}
	m := &contract.Measurement{SizeBytes: contract.GiB}
	out := ask(contract.SurveyResult{Disks: []contract.DiskSurvey{
		{Disk: inspectDiskA, Measurement: m, Hours: contract.PackHours(hours)},
		{Disk: inspectDiskB, Measurement: m, Problem: "its history cannot be read"},
	}}, nil)
	require.Len(t, out.Disks, 2, "one is not on the node, one was not asked for")
	require.Equal(t, "a", out.Disks[0].Facts.Volumes[0].Tags["team"])
	told, err := out.Disks[0].Hours.Hours()
	require.NoError(t, err)
	require.Equal(t, hours, told)
	require.Nil(t, out.Disks[0].History)
	require.Nil(t, out.Disks[1].Hours)
	require.NotNil(t, out.Disks[1].Measurement)
	require.Equal(t, "its history cannot be read", out.Disks[1].Unread)

	// An older agent is asked for each past.
	out = ask(contract.SurveyResult{Disks: []contract.DiskSurvey{{Disk: inspectDiskA, Measurement: m}, {Disk: inspectDiskB, Problem: "not assembled here"}}}, nil)
	require.Equal(t, hours, out.Disks[0].History.Hours)
	require.Equal(t, "not assembled here", out.Disks[1].Unmeasured)
	require.Nil(t, out.Disks[1].History)

	out = ask(contract.SurveyResult{}, temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil))
	for _, d := range out.Disks {
		require.Contains(t, d.Unmeasured, "no agent answers on node "+inspectNodeA)
	}
}

func TestInspectFactsOnlyAsksNoNode(t *testing.T) {
	out := inspectResult(t, inspectEnv(t), contract.InspectInput{FactsOnly: true})
	require.Len(t, out.Disks, 3)
	for _, d := range out.Disks {
		require.Nil(t, d.Measurement)
		require.Empty(t, d.Unmeasured)
	}
}

func TestInspectRefuses(t *testing.T) {
	out := inspectResult(t, inspectEnv(t), contract.InspectInput{Disk: inspectDiskB})
	require.Equal(t, contract.DiskUnknown, out.Refusal.Code)

	out = inspectResult(t, inspectEnv(t), contract.InspectInput{Disk: "nonsense"})
	require.Equal(t, contract.BadInput, out.Refusal.Code)

	env := inspectEnv(t)
	env.OnActivity(string(contract.ListDisks), mock.Anything, mock.Anything).
		Return(contract.ListDisksResult{}, contract.ActivityError(contract.Refuse(contract.PermissionMissing, "ec2:DescribeVolumes")))
	out = inspectResult(t, env, contract.InspectInput{})
	require.Equal(t, contract.PermissionMissing, out.Refusal.Code)
}

func TestPreflight(t *testing.T) {
	env := inspectEnv(t)
	env.ExecuteWorkflow(contract.PreflightWorkflow, contract.PreflightNodeInput{Node: inspectNodeA})
	var out contract.PreflightNodeResult
	require.NoError(t, env.GetWorkflowResult(&out))
	require.True(t, out.Preflight.OK)

	env = inspectEnv(t)
	env.OnActivity(string(contract.Preflight), mock.Anything, mock.Anything).
		Return(contract.PreflightResult{}, temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil))
	env.ExecuteWorkflow(contract.PreflightWorkflow, contract.PreflightNodeInput{Node: inspectNodeB})
	out = contract.PreflightNodeResult{}
	require.NoError(t, env.GetWorkflowResult(&out))
	require.Equal(t, contract.NodeUnreachable, out.Refusal.Code)
}
