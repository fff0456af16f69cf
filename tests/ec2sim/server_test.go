package ec2sim_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

const (
	inst1 = "i-0123456789abcdef0"
	inst2 = "i-0123456789abcdef1" // another zone
	zone  = "us-east-1a"
)

// start runs a server with small volumes and two instances.
func start(t *testing.T, opt ec2sim.Options) (*ec2sim.Server, *ec2.Client) {
	t.Helper()
	if opt.StateDir == "" {
		opt.StateDir = t.TempDir()
	}
	if opt.GiB == 0 {
		opt.GiB = 1 << 20
	}
	if opt.Instances == nil {
		opt.Instances = []ec2sim.Instance{{ID: inst1}, {ID: inst2, Zone: "us-east-1b"}}
	}
	s, err := ec2sim.New(opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, client(s)
}

// client does not retry, so that tests see every answer.
func client(s *ec2sim.Server) *ec2.Client {
	return ec2.New(ec2.Options{
		BaseEndpoint: aws.String(s.URL()),
		Region:       "us-east-1",
		Credentials:  credentials.NewStaticCredentialsProvider("key", "secret", ""),
		Retryer:      aws.NopRetryer{},
	})
}

func requireCode(t *testing.T, err error, code string) {
	t.Helper()
	var e smithy.APIError
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.ErrorCode(), e.ErrorMessage())
}

func create(t *testing.T, c *ec2.Client, sizeGiB int32) string {
	t.Helper()
	out, err := c.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), Size: aws.Int32(sizeGiB), VolumeType: types.VolumeTypeGp3,
	})
	require.NoError(t, err)
	return *out.VolumeId
}

func attach(t *testing.T, c *ec2.Client, vol, inst, device string) {
	t.Helper()
	_, err := c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &vol, InstanceId: &inst, Device: &device})
	require.NoError(t, err)
}

func describe(t *testing.T, c *ec2.Client, vol string) types.Volume {
	t.Helper()
	out, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{vol}})
	require.NoError(t, err)
	require.Len(t, out.Volumes, 1)
	return out.Volumes[0]
}

func modify(c *ec2.Client, vol string, sizeGiB int32) error {
	_, err := c.ModifyVolume(context.Background(), &ec2.ModifyVolumeInput{VolumeId: &vol, Size: &sizeGiB})
	return err
}

// attachment waits for the volume's attachment to be in the state.
func waitAttachment(t *testing.T, s *ec2sim.Server, vol, state string) {
	t.Helper()
	require.Eventually(t, func() bool {
		v, ok := s.Volume(vol)
		return ok && (v.Attachment != nil && v.Attachment.State == state || v.Attachment == nil && state == "")
	}, 10*time.Second, 5*time.Millisecond, "attachment of %s to become %q", vol, state)
}

// fakePlug records what is plugged and does what a test tells it.
type fakePlug struct {
	mu      sync.Mutex
	sizes   map[string]int64
	paths   map[string]string
	fail    error
	hang    bool
	resumed int
	paused  int
}

func (p *fakePlug) do(ctx context.Context, f func()) error {
	p.mu.Lock()
	fail, hang := p.fail, p.hang
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if fail != nil {
		return fail
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	return nil
}

func (p *fakePlug) Attach(ctx context.Context, _, vol, _, path string, size int64) error {
	return p.do(ctx, func() {
		if p.sizes == nil {
			p.sizes, p.paths = map[string]int64{}, map[string]string{}
		}
		p.sizes[vol], p.paths[vol] = size, path
	})
}

func (p *fakePlug) Detach(ctx context.Context, _, vol string) error {
	return p.do(ctx, func() { delete(p.sizes, vol) })
}

func (p *fakePlug) Resize(ctx context.Context, _, vol string, size int64) error {
	return p.do(ctx, func() { p.sizes[vol] = size })
}

func (p *fakePlug) Pause(context.Context, string) (func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused++
	return func() { p.mu.Lock(); defer p.mu.Unlock(); p.resumed++ }, nil
}

func (p *fakePlug) set(fail error, hang bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail, p.hang = fail, hang
}

func (p *fakePlug) size(vol string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sizes[vol]
}

func TestLifeOfAVolume(t *testing.T) {
	plug := &fakePlug{}
	s, c := start(t, ec2sim.Options{Plug: plug})
	vol := create(t, c, 8)
	require.Equal(t, types.VolumeStateAvailable, describe(t, c, vol).State)

	attach(t, c, vol, inst1, "/dev/sdf")
	waitAttachment(t, s, vol, ec2sim.StateAttached)
	require.EqualValues(t, 8<<20, plug.size(vol), "the true size, not the file's")
	require.FileExists(t, plug.paths[vol])
	require.Equal(t, types.VolumeStateInUse, describe(t, c, vol).State)

	require.NoError(t, modify(c, vol, 12))
	require.Eventually(t, func() bool { return plug.size(vol) == 12<<20 }, 10*time.Second, 5*time.Millisecond)
	require.Eventually(t, func() bool { return *describe(t, c, vol).Size == 12 }, 10*time.Second, 5*time.Millisecond)

	_, err := c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &vol})
	requireCode(t, err, "VolumeInUse")
	_, err = c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	waitAttachment(t, s, vol, "")
	require.Zero(t, plug.size(vol))
	_, err = c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	_, err = c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{vol}})
	requireCode(t, err, "InvalidVolume.NotFound")
	require.NoFileExists(t, plug.paths[vol])
}

func TestPlugFailures(t *testing.T) {
	plug := &fakePlug{}
	s, c := start(t, ec2sim.Options{Plug: plug, PlugTimeout: 50 * time.Millisecond, BusyRetry: 20 * time.Millisecond})
	vol := create(t, c, 8)

	plug.set(nil, true)
	attach(t, c, vol, inst1, "/dev/sdf")
	require.Eventually(t, func() bool { v, _ := s.Volume(vol); return v.Attachment.Hung }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, types.VolumeAttachmentStateAttaching, describe(t, c, vol).Attachments[0].State)

	plug.set(nil, false)
	_, err := c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol, Force: aws.Bool(true)})
	require.NoError(t, err)
	waitAttachment(t, s, vol, "")

	attach(t, c, vol, inst1, "/dev/sdf")
	waitAttachment(t, s, vol, ec2sim.StateAttached)
	plug.set(errors.New("no answer"), false)
	require.NoError(t, modify(c, vol, 9))
	require.Eventually(t, func() bool { v, _ := s.Volume(vol); return v.Modifications[0].Tries > 0 }, 10*time.Second, time.Millisecond)
	plug.set(nil, false)
	require.Eventually(t, func() bool { return plug.size(vol) == 9<<20 }, 10*time.Second, 5*time.Millisecond)
	plug.set(errors.New("no answer"), false)
	require.NoError(t, modify(c, vol, 10))
	require.Eventually(t, func() bool { return *describe(t, c, vol).Size == 10 }, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 9<<20, plug.size(vol), "the node does not know")

	plug.set(errors.New("device is mounted"), false)
	_, err = c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	waitAttachment(t, s, vol, ec2sim.StateBusy)
	plug.set(nil, false)
	waitAttachment(t, s, vol, "")
}
