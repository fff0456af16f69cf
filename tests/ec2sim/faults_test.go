package ec2sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

func get(t *testing.T, url string) string {
	t.Helper()
	return send(t, http.MethodGet, url, "")
}

func send(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewBufferString(body))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(data)
}

func tryCreate(c *ec2.Client) error {
	_, err := c.CreateVolume(context.Background(), &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zone), Size: aws.Int32(1)})
	return err
}

func TestFailTheNthCall(t *testing.T) {
	s, c := start(t, ec2sim.Options{})
	s.AddFault(ec2sim.Fault{Action: "CreateVolume", Skip: 1, Count: 2, Code: "InsufficientVolumeCapacity"})
	require.NoError(t, tryCreate(c))
	requireCode(t, tryCreate(c), "InsufficientVolumeCapacity")
	requireCode(t, tryCreate(c), "InsufficientVolumeCapacity")
	require.NoError(t, tryCreate(c))
	require.Len(t, s.Volumes(), 2)
	require.Empty(t, s.Faults(), "used up")

	s.AddFault(ec2sim.Fault{Action: "CreateVolume", Code: "InternalError", After: true})
	requireCode(t, tryCreate(c), "InternalError")
	require.Len(t, s.Volumes(), 3, "it failed after its effect")

	s.AddFault(ec2sim.Fault{ID: "all", Code: "Unavailable", Count: -1})
	requireCode(t, tryCreate(c), "Unavailable")
	requireCode(t, tryCreate(c), "Unavailable")
	require.True(t, s.RemoveFault("all"))
	require.NoError(t, tryCreate(c))

	require.Equal(t, 8, s.Count("CreateVolume"))
	calls := s.Calls("CreateVolume")
	require.Equal(t, "InternalError", calls[4].Code)
	require.True(t, calls[4].Effect)
	require.False(t, calls[5].Effect)
}

func TestLostAnswer(t *testing.T) {
	s, c := start(t, ec2sim.Options{})
	s.AddFault(ec2sim.Fault{Action: "CreateVolume", LoseAnswer: true})
	require.Error(t, tryCreate(c))
	require.Len(t, s.Volumes(), 1)
	s.AddFault(ec2sim.Fault{Action: "CreateVolume", LoseAnswer: true, Before: true})
	require.Error(t, tryCreate(c))
	require.Len(t, s.Volumes(), 1)
	require.True(t, s.Calls("")[1].Lost)

	// The SDK's own retry is saved by its client token.
	retrying := ec2.New(c.Options(), func(o *ec2.Options) { o.Retryer = retry.NewStandard() })
	s.AddFault(ec2sim.Fault{Action: "CreateVolume", LoseAnswer: true})
	require.NoError(t, tryCreate(retrying))
	require.Len(t, s.Volumes(), 2)
}

func TestDelay(t *testing.T) {
	s, c := start(t, ec2sim.Options{})
	s.AddFault(ec2sim.Fault{Action: "CreateVolume", DelayAfter: ec2sim.Duration(time.Hour)})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zone), Size: aws.Int32(1)})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, s.Volumes(), 1)
}

func TestHangingAttach(t *testing.T) {
	s, c := start(t, ec2sim.Options{})
	vol := create(t, c, 1)
	s.AddFault(ec2sim.Fault{Action: "AttachVolume", Hang: true, Match: map[string]string{"VolumeId": vol}})
	attach(t, c, create(t, c, 1), inst1, "/dev/sde") // does not match
	attach(t, c, vol, inst1, "/dev/sdf")
	require.NoError(t, s.Advance(time.Hour))
	require.Equal(t, types.VolumeAttachmentStateAttaching, describe(t, c, vol).Attachments[0].State)
	_, err := c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	attach(t, c, vol, inst1, "/dev/sdf")
	require.Equal(t, types.VolumeAttachmentStateAttached, describe(t, c, vol).Attachments[0].State)

	s.AddFault(ec2sim.Fault{Action: "DetachVolume", Hang: true})
	_, err = c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	require.NoError(t, s.Advance(time.Hour))
	require.Equal(t, types.VolumeAttachmentStateBusy, describe(t, c, vol).Attachments[0].State)
	_, err = c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol, Force: aws.Bool(true)})
	require.NoError(t, err)
	require.Empty(t, describe(t, c, vol).Attachments)
}

func TestAsynchronousFailures(t *testing.T) {
	s, c := start(t, ec2sim.Options{})
	s.AddFault(ec2sim.Fault{Action: "CreateVolume", FailAsync: "error"})
	vol := create(t, c, 1)
	require.Equal(t, types.VolumeStateError, describe(t, c, vol).State)
	_, err := c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &vol})
	require.NoError(t, err)

	vol = create(t, c, 1)
	s.AddFault(ec2sim.Fault{Action: "CreateSnapshot", FailAsync: "error"})
	snap, err := c.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &vol})
	require.NoError(t, err)
	out, err := c.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snap.SnapshotId}})
	require.NoError(t, err)
	require.Equal(t, types.SnapshotStateError, out.Snapshots[0].State)
}

// TestFailedModification: it is accepted, runs its time and fails; the volume is
// as it was, and may be modified again at once.
func TestFailedModification(t *testing.T) {
	s, c := start(t, ec2sim.Options{Lag: ec2sim.Lag{Modify: ec2sim.Fixed(time.Minute), Optimize: ec2sim.Fixed(time.Hour)}})
	vol := create(t, c, 8)
	attach(t, c, vol, inst1, "/dev/sdf")
	look := func() types.VolumeModification {
		out, err := c.DescribeVolumesModifications(t.Context(), &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{vol}})
		require.NoError(t, err)
		return out.VolumesModifications[0]
	}
	s.AddFault(ec2sim.Fault{Action: "ModifyVolume", FailAsync: "failed", Message: "no capacity"})
	require.NoError(t, modify(c, vol, 9))
	require.Equal(t, types.VolumeModificationStateModifying, look().ModificationState)
	require.NoError(t, s.Advance(time.Minute))
	m := look()
	require.Equal(t, types.VolumeModificationStateFailed, m.ModificationState)
	require.Equal(t, "no capacity", *m.StatusMessage)
	require.Equal(t, time.Minute, m.EndTime.Sub(*m.StartTime))
	require.EqualValues(t, 8, *describe(t, c, vol).Size)

	require.NoError(t, modify(c, vol, 9), "nothing runs")
	require.NoError(t, s.Advance(time.Minute))
	require.Equal(t, types.VolumeModificationStateOptimizing, look().ModificationState)
	require.EqualValues(t, 9, *describe(t, c, vol).Size)
}

func TestAdmin(t *testing.T) {
	s, c := start(t, ec2sim.Options{})
	admin := s.URL() + "/_admin"
	require.Contains(t, send(t, "POST", admin+"/instances", `{"id":"i-0123456789abcdef9","zone":"us-east-1c"}`), "ok")
	require.Contains(t, send(t, "POST", admin+"/faults", `{"action":"CreateVolume","code":"InternalError","delayBefore":"1ms"}`), "fault-1")
	require.Contains(t, send(t, "POST", admin+"/faults", `{"colour":"red"}`), "unknown field")
	require.Contains(t, get(t, admin+"/faults"), "1ms")
	requireCode(t, tryCreate(c), "InternalError")
	require.NoError(t, tryCreate(c))
	var calls []ec2sim.Call
	require.NoError(t, json.Unmarshal([]byte(get(t, admin+"/calls?action=CreateVolume")), &calls))
	require.Len(t, calls, 2)
	require.Contains(t, get(t, admin+"/counts"), `"CreateVolume": 2`)

	require.Contains(t, send(t, "PUT", admin+"/lag", `{"Attach":{"min":"1m","max":"1m"}}`), "ok")
	vol := s.Volumes()[0].ID
	attach(t, c, vol, inst1, "/dev/sdf")
	require.Equal(t, types.VolumeAttachmentStateAttaching, describe(t, c, vol).Attachments[0].State)
	require.Contains(t, send(t, "POST", admin+"/clock", `{"advance":"1m"}`), "ok")
	require.Contains(t, get(t, admin+"/instances/"+inst1+"/attached"), vol)
	require.Contains(t, send(t, "POST", admin+"/volumes/"+vol+"/health", `{"health":"impaired"}`), "ok")
	st, err := c.DescribeVolumeStatus(t.Context(), &ec2.DescribeVolumeStatusInput{VolumeIds: []string{vol}})
	require.NoError(t, err)
	require.Equal(t, types.VolumeStatusInfoStatusImpaired, st.VolumeStatuses[0].VolumeStatus.Status)
	require.Contains(t, send(t, "POST", admin+"/instances/"+inst1+"/detach", ""), "ok")
	require.Equal(t, types.VolumeStateAvailable, describe(t, c, vol).State)
	require.Contains(t, send(t, "POST", admin+"/instances/"+inst1+"/terminate", ""), "ok")
	require.Contains(t, get(t, admin+"/instances"), `"terminated"`)
}

func TestIMDS(t *testing.T) {
	s, _ := start(t, ec2sim.Options{})
	c := imds.New(imds.Options{Endpoint: s.IMDSURL(inst2), EnableFallback: aws.FalseTernary})
	doc, err := c.GetInstanceIdentityDocument(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, inst2, doc.InstanceID)
	require.Equal(t, "us-east-1b", doc.AvailabilityZone)
	require.Equal(t, "m5.large", doc.InstanceType)
	for path, want := range map[string]string{
		"instance-id": inst2, "placement/availability-zone": "us-east-1b", "placement/availability-zone-id": "use1-az2", "instance-type": "m5.large",
	} {
		out, err := c.GetMetadata(t.Context(), &imds.GetMetadataInput{Path: path})
		require.NoError(t, err)
		got, err := io.ReadAll(out.Content)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.Contains(t, get(t, s.IMDSURL(inst2)+"/latest/meta-data/instance-id"), "Unauthorized", "no token, no answer")
}
