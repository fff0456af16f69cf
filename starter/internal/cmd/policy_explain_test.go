package cmd

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/starter/internal/size"
)

// TestExplainReadsThePast: what the look-back window holds back is held back in
// the explanation, too.
func TestExplainReadsThePast(t *testing.T) {
	p, err := policy.Load([]byte("apiVersion: ebb.io/v1alpha1\nkind: Policy\ndefaults: {mode: enforce}\n"))
	require.NoError(t, err)
	prices, ok := price.BuiltIn().In(price.DefaultRegion)
	require.True(t, ok)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	facts := plan.Facts{
		Disk: "d-0123456789abcdef0", SizeBytes: 2000 * contract.GiB, UsedBytes: 250 * contract.GiB,
		Volumes: []plan.Volume{{GiB: 1000, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}},
	}
	past := func(days int, peak int64) *contract.ReadHistoryResult {
		var hours []contract.HistoryHour
		for at := now.AddDate(0, 0, -days); !at.After(now); at = at.Add(time.Hour) {
			hours = append(hours, contract.HistoryHour{Hour: at, UsedMaxBytes: 250 * contract.GiB, BackingBytes: 1000 * contract.GiB})
		}
		hours[len(hours)/2].UsedMaxBytes = peak * contract.GiB
		return &contract.ReadHistoryResult{Hours: hours}
	}

	alone := explain(now, p, subject{facts: facts}, prices)
	require.Nil(t, alone.History)
	require.Equal(t, plan.Shrink, alone.Plan.Action, "nothing is known of the past, nothing is held back")

	young := explain(now, p, subject{facts: facts, history: past(3, 250)}, prices)
	require.Equal(t, plan.None, young.Plan.Action)
	require.Equal(t, plan.WhyHistory, young.Plan.Why)

	quiet := explain(now, p, subject{facts: facts, history: past(10, 250)}, prices)
	require.Equal(t, plan.Shrink, quiet.Plan.Action)
	busy := explain(now, p, subject{facts: facts, history: past(10, 600)}, prices)
	require.Greater(t, busy.Plan.ToGiB, quiet.Plan.ToGiB+300, "a peak in the window wants its room")

	unborn := explain(now, p, subject{facts: facts, history: &contract.ReadHistoryResult{}}, prices)
	require.Equal(t, plan.WhyHistory, unborn.Plan.Why, "a history without hours is one")

	var out bytes.Buffer
	require.NoError(t, explainTable(&out, busy))
	require.Regexp(t, `(?m)^history +10 days on record; at most `+size.Bytes(600*contract.GiB)+` needed in the look-back window$`, out.String())
	lost := explain(now, p, subject{facts: facts, unread: "no agent answers"}, prices)
	out.Reset()
	require.NoError(t, explainTable(&out, lost))
	require.Regexp(t, `(?m)^history not read +no agent answers$`, out.String())
}
