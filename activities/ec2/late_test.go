package ec2_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// TestCreateIsPatient: a new volume that EC2 does not describe yet has not
// failed, for as long as describes may lag behind.
func TestCreateIsPatient(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe, o.StaleJitter = 300*time.Millisecond, false })
	f.Activities = ec2.New(f.api, ec2.Options{PollMin: 5 * time.Millisecond, PollMax: 2 * time.Second, Settle: 600 * time.Millisecond})
	f.create(2)
	require.Equal(t, 1, f.calls("CreateVolume"))
	require.Zero(t, f.calls("DeleteVolume"))
}

// TestSnapshotIsAskedForOnce: CreateSnapshot has no client token, so the SDK
// must not repeat it: an error may hide that a snapshot was begun.
func TestSnapshotIsAskedForOnce(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe = 0 })
	v := f.create(2)
	f.attach(v.ID, nodeA)
	api := awsec2.New(awsec2.Options{ // retries, as the worker's does
		BaseEndpoint: aws.String(f.sim.URL()), Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	a := ec2.New(api, ec2.Options{PollMin: 5 * time.Millisecond, Settle: 200 * time.Millisecond})
	f.sim.AddFault(ec2sim.Fault{Action: "CreateSnapshot", Code: "InternalError", Status: 500, After: true})
	in := contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: []string{v.ID}, Move: "run-1"}
	_, err := a.SnapshotDisk(t.Context(), in)
	require.Error(t, err)
	out, err := a.SnapshotDisk(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, out.Snapshots, 1)
	require.Len(t, f.sim.Snapshots(), 1)
}
