package ec2_test

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

const (
	observe = "../../deploy/iam/observe.json"
	enforce = "../../deploy/iam/enforce.json"
)

type statement struct {
	Sid, Effect      string
	Action, Resource any
	Condition        map[string]map[string]any
}

func list(v any) []string {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	var out []string
	for _, s := range v.([]any) {
		out = append(out, s.(string))
	}
	return out
}

func document(t *testing.T, path string) (text string, statements []statement) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var doc struct {
		Version   string
		Statement []statement
	}
	require.NoError(t, json.Unmarshal(data, &doc))
	require.Equal(t, "2012-10-17", doc.Version)
	return string(data), doc.Statement
}

func actions(statements []statement) []string {
	var out []string
	for _, s := range statements {
		out = append(out, list(s.Action)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// The activities reach EC2 through API alone, so its methods are all the calls.
func TestPoliciesAreTheCalls(t *testing.T) {
	var all, describes []string
	api := reflect.TypeFor[ec2.API]()
	for i := range api.NumMethod() {
		name := "ec2:" + api.Method(i).Name
		all = append(all, name)
		if strings.HasPrefix(name, "ec2:Describe") {
			describes = append(describes, name)
		}
	}
	slices.Sort(all)
	slices.Sort(describes)
	text, allowed := document(t, enforce)
	require.Equal(t, all, actions(allowed), enforce)
	_, looks := document(t, observe)
	require.Equal(t, describes, actions(looks), "%s: nothing but what only looks", observe)

	for _, s := range allowed {
		require.Equal(t, "Allow", s.Effect)
		if slices.Equal(actions([]statement{s}), describes) {
			continue
		}
		instances := slices.Equal(list(s.Resource), []string{"arn:aws:ec2:*:*:instance/*"}) // a node is not tagged
		if instances {
			require.Subset(t, []string{"ec2:AttachVolume", "ec2:CreateSnapshots", "ec2:DetachVolume"}, list(s.Action), s.Sid)
			continue
		}
		require.Len(t, s.Condition, 1, s.Sid)
		if s.Condition["StringEquals"]["ec2:CreateAction"] != nil {
			require.Equal(t, []string{"ec2:CreateTags"}, list(s.Action), s.Sid)
			continue
		}
		tag := s.Condition["StringLike"]["aws:ResourceTag/"+contract.TagDisk]
		if tag == nil {
			tag = s.Condition["StringLike"]["aws:RequestTag/"+contract.TagDisk]
		}
		require.Equal(t, "d-*", tag, "%s: only what is tagged as a disk's", s.Sid)
	}

	page, err := os.ReadFile("../../docs/security.md")
	require.NoError(t, err)
	_, block, ok := strings.Cut(string(page), "```json\n")
	require.True(t, ok)
	block, _, _ = strings.Cut(block, "```")
	require.Equal(t, text, block, "docs/security.md shows %s", enforce)
}

// names notes which activities are registered.
type names struct {
	worker.ActivityRegistry
	all *[]string
}

func (n names) RegisterActivityWithOptions(_ any, o activity.RegisterOptions) {
	*n.all = append(*n.all, o.Name)
}

// cases is one call of every activity, on volumes that stand ready for it: what
// only looks, and what changes something.
func (f fixture) cases() (looks, changes map[string]func(context.Context) error) {
	ids := f.seed(ec2sim.Seed{
		Volumes: []ec2sim.Volume{
			vol(disk, contract.RoleActive, 2, 0, nodeA),
			vol(disk, contract.RoleRetired, 1, 0, "", contract.TagRetiredAt, retiredAt(48*time.Hour)),
			vol(disk, contract.RoleIncoming, 3, 0, ""),
			vol(other, contract.RoleActive, 1, 0, nodeB),
		},
		Snapshots: []ec2sim.Snapshot{snap(disk, 30*24*time.Hour, "before a shrink")},
	})
	active, retired, incoming, moving := ids[0], ids[1], ids[2], ids[3]
	looks = map[string]func(context.Context) error{
		"DescribeDisk": func(ctx context.Context) error {
			_, err := f.DescribeDisk(ctx, contract.DescribeDiskInput{Disk: disk})
			return err
		},
		"ListDisks": func(ctx context.Context) error {
			_, err := f.ListDisks(ctx, contract.ListDisksInput{Nodes: []string{nodeA}})
			return err
		},
		"DescribeNode": func(ctx context.Context) error {
			_, err := f.DescribeNode(ctx, contract.DescribeNodeInput{Node: nodeA})
			return err
		},
		"WaitForBackups": func(ctx context.Context) error {
			_, err := f.WaitForBackups(ctx, contract.WaitForBackupsInput{Disk: disk, Volumes: []string{active}})
			return err
		},
		"Fleet":     func(ctx context.Context) error { _, err := f.Fleet(ctx); return err },
		"Leftovers": func(ctx context.Context) error { _, err := f.Leftovers(ctx, minAge, grace, retention); return err },
	}
	changes = map[string]func(context.Context) error{
		"CreateVolume": func(ctx context.Context) error { _, err := f.CreateVolume(ctx, createInput(10)); return err },
		"AttachVolume": func(ctx context.Context) error {
			_, err := f.AttachVolume(ctx, contract.AttachVolumeInput{Disk: disk, Volume: incoming, Node: nodeA})
			return err
		},
		"DetachVolume": func(ctx context.Context) error {
			_, err := f.DetachVolume(ctx, contract.DetachVolumeInput{Disk: other, Volume: moving, Node: nodeB})
			return err
		},
		"ModifyVolume": func(ctx context.Context) error {
			_, err := f.ModifyVolume(ctx, contract.ModifyVolumeInput{Disk: disk, Volume: active, SizeGiB: 200})
			return err
		},
		"TagVolume": func(ctx context.Context) error {
			_, err := f.TagVolume(ctx, contract.TagVolumeInput{Disk: disk, Volume: incoming, Role: contract.RoleActive, Generation: 3})
			return err
		},
		"DeleteVolume": func(ctx context.Context) error {
			_, err := f.DeleteVolume(ctx, contract.DeleteVolumeInput{Disk: disk, Volume: retired, Roles: []contract.Role{contract.RoleRetired}})
			return err
		},
		"SnapshotDisk": func(ctx context.Context) error {
			_, err := f.SnapshotDisk(ctx, contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: []string{active}, Move: "m", Reason: "before a shrink"})
			return err
		},
		"DeleteSnapshot": func(ctx context.Context) error {
			return f.DeleteSnapshot(ctx, disk, f.sim.Snapshots()[0].ID)
		},
	}
	var registered []string
	f.Register(names{all: &registered})
	for _, name := range registered {
		require.True(f.t, looks[name] != nil || changes[name] != nil, "activity %s is not tried under the policies", name)
	}
	return looks, changes
}

func TestObserveChangesNothing(t *testing.T) {
	f := start(t)
	looks, changes := f.cases()
	text, _ := document(t, observe)
	require.NoError(t, f.sim.SetPolicy(text))
	before, snaps := f.sim.Volumes(), f.sim.Snapshots()
	for name, look := range looks {
		require.NoError(t, look(t.Context()), name)
	}
	missing := map[string]string{"TagVolume": "CreateTags", "SnapshotDisk": "CreateSnapshot"}
	for name, change := range changes {
		action := "ec2:" + name
		if m := missing[name]; m != "" {
			action = "ec2:" + m
		}
		r := refused(t, change(t.Context()), contract.PermissionMissing)
		require.Contains(t, r.Message, action, name)
		require.Contains(t, r.Next, "allow "+action, name)
		require.NotContains(t, r.Message, "Encoded", name)
		require.NotEmpty(t, r.Disk, name)
	}
	require.Equal(t, before, f.sim.Volumes())
	require.Equal(t, snaps, f.sim.Snapshots())
}

func TestEnforceIsEnough(t *testing.T) {
	f := start(t)
	looks, changes := f.cases()
	two := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{ // taken together
		vol(diskID(1), contract.RoleActive, 1, 0, nodeB), vol(diskID(1), contract.RoleActive, 1, 1, nodeB),
	}})
	strange := vol("", contract.RoleActive, 1, 0, "")
	strange.Tags = nil
	someones := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{strange}})[0]
	text, _ := document(t, enforce)
	require.NoError(t, f.sim.SetPolicy(text))
	for name, look := range looks {
		require.NoError(t, look(t.Context()), name)
	}
	for name, change := range changes {
		require.NoError(t, change(t.Context()), name)
	}
	require.Equal(t, 1, f.calls("DeleteVolume"))
	require.Equal(t, 1, f.calls("DeleteSnapshot"))
	_, err := f.SnapshotDisk(t.Context(), contract.SnapshotDiskInput{Disk: diskID(1), Node: nodeB, Volumes: two, Move: "m", Reason: "before a shrink"})
	require.NoError(t, err)
	require.Equal(t, 1, f.calls("CreateSnapshots"))

	// What is not tagged as a disk's is out of reach, whatever a fault in Ebb asks.
	for name, call := range f.direct(someones) {
		require.ErrorContains(t, call(t.Context()), "UnauthorizedOperation", name)
	}
}

// direct calls EC2 for a volume, past everything that the activities check.
func (f fixture) direct(volume string) map[string]func(context.Context) error {
	tags := []types.Tag{{Key: aws.String(contract.TagDisk), Value: aws.String(string(disk))}}
	return map[string]func(context.Context) error{
		"DeleteVolume": func(ctx context.Context) error {
			_, err := f.api.DeleteVolume(ctx, &awsec2.DeleteVolumeInput{VolumeId: &volume})
			return err
		},
		"ModifyVolume": func(ctx context.Context) error {
			_, err := f.api.ModifyVolume(ctx, &awsec2.ModifyVolumeInput{VolumeId: &volume, Size: aws.Int32(200)})
			return err
		},
		"AttachVolume": func(ctx context.Context) error {
			_, err := f.api.AttachVolume(ctx, &awsec2.AttachVolumeInput{VolumeId: &volume, InstanceId: aws.String(nodeA), Device: aws.String("/dev/sdz")})
			return err
		},
		"CreateTags": func(ctx context.Context) error {
			_, err := f.api.CreateTags(ctx, &awsec2.CreateTagsInput{Resources: []string{volume}, Tags: tags})
			return err
		},
		"CreateSnapshot": func(ctx context.Context) error {
			_, err := f.api.CreateSnapshot(ctx, &awsec2.CreateSnapshotInput{VolumeId: &volume})
			return err
		},
		"CreateVolume": func(ctx context.Context) error {
			_, err := f.api.CreateVolume(ctx, &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(zone), Size: aws.Int32(1)})
			return err
		},
	}
}
