package ec2sim_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// strictPlug is a node that notices what a server must never do.
type strictPlug struct {
	mu      sync.Mutex
	plugged map[string]string // volume -> instance
	sizes   map[string]int64
	inUse   map[string]bool
	wrong   []string
}

func (p *strictPlug) enter(vol string) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inUse[vol] {
		p.wrong = append(p.wrong, vol+": two calls at once")
	}
	p.inUse[vol] = true
	return func() { p.mu.Lock(); defer p.mu.Unlock(); p.inUse[vol] = false }
}

func (p *strictPlug) Attach(_ context.Context, inst, vol, _, _ string, size int64) error {
	defer p.enter(vol)()
	p.mu.Lock()
	defer p.mu.Unlock()
	if has := p.plugged[vol]; has != "" && has != inst {
		p.wrong = append(p.wrong, fmt.Sprintf("%s: plugged into %s and %s", vol, has, inst))
	}
	p.plugged[vol], p.sizes[vol] = inst, size
	return nil
}

func (p *strictPlug) Detach(_ context.Context, _, vol string) error {
	defer p.enter(vol)()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.plugged, vol)
	return nil
}

func (p *strictPlug) Resize(_ context.Context, inst, vol string, size int64) error {
	defer p.enter(vol)()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.plugged[vol] != inst:
		p.wrong = append(p.wrong, vol+": resized where it is not")
	case size < p.sizes[vol]: // the same again is a call repeated after a restart
		p.wrong = append(p.wrong, vol+": shrank")
	}
	p.sizes[vol] = size
	return nil
}

// TestRandomCalls makes random calls, restarts among them, and checks after
// each that what the API says agrees with what is plugged.
func TestRandomCalls(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plug := &strictPlug{plugged: map[string]string{}, sizes: map[string]int64{}, inUse: map[string]bool{}}
		r := ec2sim.Range{Max: 90 * time.Second}
		opt := ec2sim.Options{
			StateDir: t.TempDir(), GiB: 4096, Seed: rapid.Int64().Draw(rt, "seed"), Plug: plug,
			Instances: []ec2sim.Instance{{ID: inst1}, {ID: inst2}},
			Lag:       ec2sim.Lag{Create: r, Delete: r, Attach: r, Detach: r, Modify: r, Optimize: r, Snapshot: r},
		}
		s, err := ec2sim.New(opt)
		require.NoError(rt, err)
		defer func() { require.NoError(rt, s.Close()) }()
		c := client(s)
		ctx := t.Context()

		var vols []string
		pick := func(rt *rapid.T) *string {
			if len(vols) == 0 {
				rt.Skip("no volume")
			}
			return aws.String(rapid.SampledFrom(vols).Draw(rt, "volume"))
		}
		refused := func(err error) {
			var e smithy.APIError
			if err != nil && (!errors.As(err, &e) || e.ErrorCode() == "InternalError") {
				rt.Fatalf("not a refusal: %v", err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(*rapid.T) {
				out, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zone), Size: aws.Int32(8), VolumeType: types.VolumeTypeGp3})
				refused(err)
				if err == nil {
					vols = append(vols, *out.VolumeId)
				}
			},
			"attach": func(rt *rapid.T) {
				_, err := c.AttachVolume(ctx, &ec2.AttachVolumeInput{
					VolumeId: pick(rt), InstanceId: aws.String(rapid.SampledFrom([]string{inst1, inst2}).Draw(rt, "instance")),
					Device: aws.String(rapid.SampledFrom([]string{"/dev/sdf", "/dev/sdg", "/dev/sdh"}).Draw(rt, "device")),
				})
				refused(err)
			},
			"detach": func(rt *rapid.T) {
				_, err := c.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: pick(rt), Force: aws.Bool(rapid.Bool().Draw(rt, "force"))})
				refused(err)
			},
			"modify": func(rt *rapid.T) {
				_, err := c.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: pick(rt), Size: aws.Int32(rapid.Int32Range(7, 20).Draw(rt, "size"))})
				refused(err)
			},
			"delete": func(rt *rapid.T) {
				_, err := c.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: pick(rt)})
				refused(err)
			},
			"snapshot": func(rt *rapid.T) {
				_, err := c.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: pick(rt)})
				refused(err)
			},
			"wait": func(rt *rapid.T) {
				require.NoError(rt, s.Advance(time.Duration(rapid.IntRange(1, 7200).Draw(rt, "seconds"))*time.Second))
			},
			"restart": func(rt *rapid.T) {
				require.NoError(rt, s.Close())
				next, err := ec2sim.New(opt)
				require.NoError(rt, err)
				s, c = next, client(next)
			},
			"": func(rt *rapid.T) { checkPlugged(rt, s, plug) },
		})
		require.NoError(rt, s.Advance(24*time.Hour))
		settled(rt, s)
		checkPlugged(rt, s, plug)
		for _, v := range s.Volumes() {
			require.Contains(rt, []string{ec2sim.StateAvailable, ec2sim.StateInUse}, v.State)
			require.Equal(rt, v.State == ec2sim.StateInUse, v.Attachment != nil)
			require.Equal(rt, v.Attachment != nil, plug.plugged[v.ID] != "", "%s", v.ID)
			if v.Attachment != nil {
				require.Equal(rt, s.Bytes(v.SizeGiB), plug.sizes[v.ID], "%s", v.ID)
			}
			for _, m := range v.Modifications {
				require.Equal(rt, ec2sim.StateCompleted, m.State)
			}
		}
		for _, sn := range s.Snapshots() {
			require.Equal(rt, ec2sim.StateCompleted, sn.State)
		}
	})
}

// settled waits until nothing waits for the plug any more; its calls take
// real time. The clock goes on, for what begins when a call has ended.
func settled(rt *rapid.T, s *ec2sim.Server) {
	end := time.Now().Add(20 * time.Second)
	for {
		busy := slices.ContainsFunc(s.Volumes(), func(v ec2sim.Volume) bool {
			n := len(v.Modifications)
			return v.State == ec2sim.StateDeleting || v.Attachment != nil && v.Attachment.State != ec2sim.StateAttached ||
				n > 0 && v.Modifications[n-1].State != ec2sim.StateCompleted
		})
		if !busy {
			return
		}
		if time.Now().After(end) {
			rt.Fatalf("not settled: %+v", s.Volumes())
		}
		require.NoError(rt, s.Advance(10*time.Minute))
		time.Sleep(time.Millisecond)
	}
}

// checkPlugged checks what must hold at any moment.
func checkPlugged(rt *rapid.T, s *ec2sim.Server, p *strictPlug) {
	p.mu.Lock()
	wrong, plugged := slices.Clone(p.wrong), maps.Clone(p.plugged)
	p.mu.Unlock()
	require.Empty(rt, wrong)
	devices := map[string]bool{}
	for _, v := range s.Volumes() {
		a := v.Attachment
		if a == nil {
			continue
		}
		key := a.InstanceID + a.Device
		require.False(rt, devices[key], "device %s twice", key)
		devices[key] = true
		if a.State == ec2sim.StateAttached && plugged[v.ID] != a.InstanceID {
			p.mu.Lock()
			now := p.plugged[v.ID] // it may have been plugged since the copy
			p.mu.Unlock()
			require.Equal(rt, a.InstanceID, now, "%s is attached but not plugged", v.ID)
		}
	}
}
