package ec2_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

func diskID(n int) contract.DiskID { return contract.DiskID(fmt.Sprintf("d-%017x", n)) }

func nodeID(n int) string { return fmt.Sprintf("i-%017x", n+0x1000) }

// vol is a volume of a disk as tags describe it; node empty: detached.
func vol(disk contract.DiskID, role contract.Role, generation, index int, node string, tags ...string) ec2sim.Volume {
	v := ec2sim.Volume{Shape: ec2sim.Shape{SizeGiB: 100}, Zone: zone, Tags: map[string]string{
		contract.TagDisk: string(disk), contract.TagRole: string(role), contract.TagCluster: "c1",
		contract.TagGeneration: fmt.Sprint(generation), contract.TagIndex: fmt.Sprint(index),
	}}
	for i := 0; i < len(tags); i += 2 {
		v.Tags[tags[i]] = tags[i+1]
	}
	if node != "" {
		v.Attachment = &ec2sim.Attachment{InstanceID: node}
	}
	return v
}

func (f fixture) seed(in ec2sim.Seed) []string {
	f.t.Helper()
	ids, err := f.sim.Seed(in)
	require.NoError(f.t, err)
	return ids
}

// bigFleet is 250 nodes with 40 disks each.
func bigFleet() ec2sim.Seed {
	var in ec2sim.Seed
	for n := range 250 {
		in.Instances = append(in.Instances, ec2sim.Instance{ID: nodeID(n), Zone: zone})
		for i := range 40 {
			in.Volumes = append(in.Volumes, vol(diskID(n*40+i), contract.RoleActive, 1, 0, nodeID(n)))
		}
	}
	return in
}

func unix(at ...time.Time) string {
	var words []string
	for _, t := range at {
		words = append(words, fmt.Sprint(t.Unix()))
	}
	return strings.Join(words, " ")
}

func TestFleet(t *testing.T) {
	f := start(t)
	now := time.Now()
	in := ec2sim.Seed{Volumes: []ec2sim.Volume{
		vol(diskID(1), contract.RoleActive, 3, 0, nodeA, contract.TagModified, unix(now.Add(-25*time.Hour), now.Add(-time.Hour))),
		vol(diskID(1), contract.RoleActive, 3, 1, nodeA, contract.TagModified, unix(now.Add(-time.Hour), now.Add(-time.Minute))),
		vol(diskID(1), contract.RoleIncoming, 4, 0, nodeA),
		vol(diskID(1), contract.RoleRetired, 2, 0, nodeB),
		vol(diskID(2), contract.RoleActive, 1, 0, nodeB), // an older generation elsewhere
		vol(diskID(2), contract.RoleActive, 2, 0, nodeA),
		vol(diskID(3), contract.RoleActive, 2, 0, ""),
		vol(diskID(3), contract.RoleIncoming, 3, 0, ""), // not attached: no move runs
		vol(diskID(4), contract.RoleIncoming, 1, 0, nodeB),
		vol(diskID(5), contract.RoleRetired, 1, 0, ""),
		vol(diskID(6), contract.RoleActive, 1, 0, nodeC, contract.TagCluster, "another"),
		vol("nonsense", contract.RoleActive, 1, 0, nodeA),
		vol(diskID(7), contract.RoleActive, 1, 0, nodeC, contract.TagModified, "x -5 99999999999999999999 12"),
	}}
	in.Volumes[len(in.Volumes)-1].Zone = "us-east-1b"
	f.seed(in)
	got, err := f.Fleet(t.Context())
	require.NoError(t, err)
	require.Equal(t, ec2.Fleet{
		Nodes:       []ec2.FleetNode{{Node: nodeA, Zone: zone, Disks: 2}, {Node: nodeC, Zone: "us-east-1b", Disks: 1}},
		Detached:    []contract.DiskID{diskID(3)},
		ExtraGiB:    300,
		MovesByNode: map[string]int{nodeA: 1, nodeB: 1}, MovesByZone: map[string]int{zone: 2},
		Modifications: 2,
	}, got)
}

// EC2's own buckets for describes of all resources, and a client that leaves
// retries to the activities.
func TestFleetOfTenThousandDisksUnderThrottling(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) {
		o.Throttle = map[string]ec2sim.Bucket{"Describe*": {Burst: 5, Rate: 5}}
	})
	f.sim.AddFault(ec2sim.Fault{Action: "DescribeVolumes", Code: "RequestLimitExceeded", Skip: 3, Count: 2}) // on a slow machine too
	fleet := bigFleet()
	for n := range 500 {
		fleet.Volumes = append(fleet.Volumes, vol(diskID(n*20), contract.RoleRetired, 0, 0, "", contract.TagRetiredAt, retiredAt(2*grace)))
	}
	f.seed(fleet)
	begin := time.Now()
	got, err := f.Fleet(t.Context())
	require.NoError(t, err)
	took := time.Since(begin)
	require.Len(t, got.Nodes, 250)
	for _, n := range got.Nodes {
		require.Equal(t, 40, n.Disks)
	}
	require.Less(t, took, 60*time.Second)

	begin = time.Now()
	var nodes []string
	for n := range 200 {
		nodes = append(nodes, nodeID(n))
	}
	disks, err := f.DisksOn(t.Context(), nodes)
	require.NoError(t, err)
	require.Len(t, disks, 8000)
	byNode := time.Since(begin)
	begin = time.Now()
	old, err := f.Leftovers(t.Context(), minAge, grace, retention)
	require.NoError(t, err)
	require.Len(t, old, 500)
	require.Less(t, time.Since(begin), 60*time.Second)
	throttled := 0
	for _, c := range f.sim.Calls("") {
		if c.Code == "RequestLimitExceeded" {
			throttled++
		}
	}
	t.Logf("Fleet in %s, %d disks by node in %s, %d leftovers in %s, %d calls throttled",
		took, len(disks), byNode, len(old), time.Since(begin), throttled)
	require.NotZero(t, throttled)
}

func TestDisksOn(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe = 0 })
	now := time.Now().Truncate(time.Second).UTC()
	ids := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{
		vol(diskID(1), contract.RoleActive, 3, 0, nodeA, contract.TagModified, "junk "+unix(now.Add(-time.Hour)), contract.TagName, "team/one", "team", "x"),
		vol(diskID(1), contract.RoleActive, 3, 1, nodeA, contract.TagModified, unix(now)),
		vol(diskID(1), contract.RoleRetired, 2, 0, ""),
		vol(diskID(2), contract.RoleActive, 1, 0, nodeB),
		vol(diskID(3), contract.RoleRetired, 1, 0, nodeA), // active elsewhere
		vol(diskID(3), contract.RoleActive, 2, 0, nodeB),
		vol(diskID(4), contract.RoleActive, 1, 0, nodeA, contract.TagCluster, "another"),
	}})
	require.NoError(t, f.until(func() error {
		_, err := f.ModifyVolume(t.Context(), contract.ModifyVolumeInput{Disk: diskID(2), Volume: ids[3], SizeGiB: 120})
		return err
	}))
	find := func(nodes ...string) []contract.DiskFacts {
		res, err := f.ListDisks(t.Context(), contract.ListDisksInput{Nodes: nodes})
		require.NoError(t, err)
		direct, err := f.DisksOn(t.Context(), nodes)
		require.NoError(t, err)
		require.Len(t, direct, len(res.Disks))
		for i := range direct {
			require.Equal(t, res.Disks[i].Disk, direct[i].Disk)
		}
		return res.Disks
	}
	one := find(nodeA)
	require.Len(t, one, 1)
	require.Equal(t, diskID(1), one[0].Disk)
	require.Equal(t, "team/one", one[0].Name)
	require.Len(t, one[0].Volumes, 2, "what is attached there")
	for _, v := range one[0].Volumes {
		require.Equal(t, []time.Time{now.Add(-time.Hour), now}, v.Modified, "the disk's, of all its volumes")
		require.True(t, v.OptimizingUntil.IsZero())
	}
	both := find(nodeB, nodeA, nodeC)
	require.Len(t, both, 3)
	require.Equal(t, []contract.DiskID{diskID(1), diskID(2), diskID(3)}, []contract.DiskID{both[0].Disk, both[1].Disk, both[2].Disk})
	until := both[1].Volumes[0].OptimizingUntil
	require.WithinRange(t, until, now.Add(9*time.Minute), now.Add(7*time.Hour))
	require.Empty(t, find(nodeC))

	_, err := f.ListDisks(t.Context(), contract.ListDisksInput{Nodes: make([]string, 201)})
	refused(t, err, contract.BadInput)
	_, err = f.DisksOn(t.Context(), []string{"i-*"})
	refused(t, err, contract.BadInput)
}

// pagesAPI answers DescribeVolumes with pages made up on the way, and looks at
// the memory in use before the last.
type pagesAPI struct {
	ec2.API
	pages  int
	before func()
}

func (p *pagesAPI) DescribeVolumes(_ context.Context, in *awsec2.DescribeVolumesInput, _ ...func(*awsec2.Options)) (*awsec2.DescribeVolumesOutput, error) {
	n := 0
	if in.NextToken != nil {
		n, _ = strconv.Atoi(*in.NextToken)
	}
	if n == p.pages-1 {
		p.before()
	}
	out := &awsec2.DescribeVolumesOutput{}
	for i := range int(*in.MaxResults) {
		tag := func(k, v string) types.Tag { return types.Tag{Key: aws.String(k), Value: aws.String(v)} }
		id := n*int(*in.MaxResults) + i
		out.Volumes = append(out.Volumes, types.Volume{
			VolumeId: aws.String(fmt.Sprintf("vol-%017x", id)), Size: aws.Int32(100), AvailabilityZone: aws.String(zone), State: types.VolumeStateInUse,
			Attachments: []types.VolumeAttachment{{InstanceId: aws.String(nodeID(id / 40)), State: types.VolumeAttachmentStateAttached}},
			Tags: []types.Tag{
				tag(contract.TagDisk, string(diskID(id))), tag(contract.TagRole, "active"), tag(contract.TagGeneration, "1"),
				tag(contract.TagIndex, "0"), tag(contract.TagModified, unix(time.Now())),
			},
		})
	}
	if n+1 < p.pages {
		out.NextToken = aws.String(strconv.Itoa(n + 1))
	}
	return out, nil
}

func TestFleetKeepsLittleInMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var last uint64
	api := &pagesAPI{pages: 100, before: func() { last = heap() }}
	before := heap()
	got, err := ec2.New(api, ec2.Options{}).Fleet(t.Context())
	require.NoError(t, err)
	require.Len(t, got.Nodes, 2500)
	require.Equal(t, 100_000, got.Modifications)
	mib := int64(last-before) >> 20
	t.Logf("100,000 volumes: %d MiB", mib)
	require.Less(t, mib, int64(64))
}

// A list of many pages, and one that waits for others, is alive.
func TestListsHeartbeat(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	held, free := make(chan struct{}), make(chan struct{})
	api := &pagesAPI{pages: 1, before: func() {
		held <- struct{}{}
		<-free
	}}
	a := ec2.New(api, ec2.Options{PollMin: time.Millisecond, PollMax: 5 * time.Millisecond})
	done := make(chan error, 2)
	for range 2 { // the places there are
		go func() {
			_, err := a.Fleet(t.Context())
			done <- err
		}()
		<-held
	}
	var once sync.Once
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var what string
		if details.Get(&what) == nil && strings.Contains(what, "after other lists") {
			once.Do(func() { close(free) })
		}
	})
	go func() {
		for range held { // the list under test needs no leave
		}
	}()
	env.RegisterActivityWithOptions(func(ctx context.Context) error { _, err := a.Fleet(ctx); return err }, activity.RegisterOptions{Name: "Fleet"})
	_, err := env.ExecuteActivity("Fleet")
	require.NoError(t, err)
	require.NoError(t, errors.Join(<-done, <-done))
	close(held)
}
