// Package conformance says what Ebb relies on in EC2, as tests written against
// the AWS SDK alone. They hold for ec2sim and are meant to hold for EC2 itself:
// a difference is a fault of the simulator.
//
// They tolerate lags and stale answers of any length below Config.Timeout, and
// delete what they create.
package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

// Config says where to run.
type Config struct {
	Client *ec2.Client
	// Zone to create volumes in, and a running instance there with free slots.
	Zone       string
	InstanceID string
	// OtherZone of the region; the zone mismatch is not tested when empty.
	OtherZone string
	// Expendable is another running instance of the zone, which the suite terminates;
	// what becomes of volumes then is not tested when empty.
	Expendable string
	// Device names that are free on the instance; /dev/sdx and /dev/sdy when empty.
	Devices [2]string
	// Timeout of one wait (5 min when zero) and the pause between two looks (2 s).
	Timeout, Poll time.Duration
}

// suite is one run.
type suite struct {
	Config
	run string // tags everything this run made
}

const runTag = "ebb:conformance"

// Run runs all tests as subtests of t.
func Run(t *testing.T, cfg Config) {
	if cfg.Devices[0] == "" {
		cfg.Devices = [2]string{"/dev/sdx", "/dev/sdy"}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Minute
	}
	if cfg.Poll == 0 {
		cfg.Poll = 2 * time.Second
	}
	s := &suite{Config: cfg, run: rand.Text()}
	for _, test := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"volume", s.volume},
		{"client token", s.clientToken},
		{"volume types", s.volumeTypes},
		{"bad requests", s.badRequests},
		{"dry run", s.dryRun},
		{"attach and detach", s.attachDetach},
		{"zone mismatch", s.zoneMismatch},
		{"attachment limit", s.attachmentLimit},
		{"delete on termination", s.deleteOnTermination},
		{"modify", s.modify},
		{"snapshot", s.snapshot},
		{"snapshot states", s.snapshotStates},
		{"snapshots of an instance", s.instanceSnapshots},
		{"encryption", s.encryption},
		{"tags", s.tags},
		{"filters and pages", s.filtersAndPages},
		{"instances", s.instances},
		{"zones and types", s.zonesAndTypes},
	} {
		t.Run(test.name, test.f)
	}
}

// code of an EC2 error, "" when err is none.
func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

func requireCode(t *testing.T, err error, want ...string) {
	t.Helper()
	require.Error(t, err)
	require.Contains(t, want, code(err), "%v", err)
}

// eventually waits until f reports true; an error of f ends the test.
func (s *suite) eventually(t *testing.T, what string, f func() (bool, error)) {
	t.Helper()
	end := time.Now().Add(s.Timeout)
	for {
		ok, err := f()
		require.NoError(t, err, what)
		if ok {
			return
		}
		require.True(t, time.Now().Before(end), "timed out: %s", what)
		select {
		case <-time.After(s.Poll):
		case <-t.Context().Done():
			t.FailNow()
		}
	}
}

func (s *suite) tagSpec(kind types.ResourceType, more ...types.Tag) []types.TagSpecification {
	return []types.TagSpecification{{
		ResourceType: kind,
		Tags:         append([]types.Tag{{Key: aws.String(runTag), Value: aws.String(s.run)}}, more...),
	}}
}

// create makes a 1 GiB gp3 volume, changed by edit, and waits until it is
// available. The volume is deleted at the end of the test.
func (s *suite) create(t *testing.T, edit func(*ec2.CreateVolumeInput)) string {
	t.Helper()
	in := &ec2.CreateVolumeInput{
		AvailabilityZone: &s.Zone, Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3,
		TagSpecifications: s.tagSpec(types.ResourceTypeVolume),
	}
	if edit != nil {
		edit(in)
	}
	out, err := s.Client.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.Contains(t, []types.VolumeState{types.VolumeStateCreating, types.VolumeStateAvailable}, out.State)
	id := *out.VolumeId
	t.Cleanup(func() { s.discard(t, id) })
	s.waitAvailable(t, id)
	return id
}

// discard detaches and deletes a volume that may be gone already.
func (s *suite) discard(t *testing.T, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	for ctx.Err() == nil {
		_, err := s.Client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id})
		switch code(err) {
		case "", "InvalidVolume.NotFound":
			return
		case "VolumeInUse":
			if _, err := s.Client.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &id}); err != nil && code(err) != "IncorrectState" {
				t.Logf("detach %s: %v", id, err)
			}
		}
		time.Sleep(s.Poll)
	}
	t.Errorf("volume %s is left behind", id)
}

// look describes a volume; nil when EC2 does not (or not yet) show it.
func (s *suite) look(ctx context.Context, id string) (*types.Volume, error) {
	out, err := s.Client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if code(err) == "InvalidVolume.NotFound" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &out.Volumes[0], nil
}

func (s *suite) waitAvailable(t *testing.T, id string) *types.Volume {
	t.Helper()
	return s.waitVolumeFor(t, id, "available", func(v *types.Volume) bool { return v.State == types.VolumeStateAvailable })
}

func (s *suite) waitVolumeFor(t *testing.T, id, what string, ok func(*types.Volume) bool) *types.Volume {
	t.Helper()
	var got *types.Volume
	s.eventually(t, id+" "+what, func() (bool, error) {
		v, err := s.look(t.Context(), id)
		if err != nil || v == nil {
			return false, err
		}
		got = v
		return ok(v), nil
	})
	return got
}

// waitAttachment waits for an attachment's state; "" is for none.
func (s *suite) waitAttachment(t *testing.T, id string, want types.VolumeAttachmentState) *types.Volume {
	t.Helper()
	return s.waitVolumeFor(t, id, "attachment "+string(want), func(v *types.Volume) bool {
		if len(v.Attachments) == 0 {
			return want == "" && v.State == types.VolumeStateAvailable
		}
		return v.Attachments[0].State == want
	})
}

func tagMap(tags []types.Tag) map[string]string {
	out := map[string]string{}
	for _, t := range tags {
		out[*t.Key] = *t.Value
	}
	return out
}
