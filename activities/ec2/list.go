package ec2

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

const (
	maxNodes   = 200 // of one ListDisks
	maxFilter  = 200 // values in the filters of one call
	pageSize   = 1000
	modifyPage = 500
)

// onePage gets a page of a list when it may, and outlasts throttling.
type onePage func(ctx context.Context, what string, get func(context.Context) error) error

// eachPage calls fn with the volumes that match all filters, page by page, without
// those being deleted and those restored from a snapshot (diskTag).
func (a *Activities) eachPage(ctx context.Context, one onePage, filters []types.Filter, fn func([]types.Volume)) error {
	pages := ec2.NewDescribeVolumesPaginator(a.api, &ec2.DescribeVolumesInput{Filters: filters, MaxResults: aws.Int32(pageSize)})
	for pages.HasMorePages() {
		err := one(ctx, "EC2 lists the volumes", func(ctx context.Context) error {
			page, err := pages.NextPage(ctx, unretried)
			if err == nil {
				fn(slices.DeleteFunc(page.Volumes, func(v types.Volume) bool { return gone(v) || restored(v) }))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inTurn gets a page in its turn among the lists that run. A list may have many pages, and
// many lists may wait: each page and each wait is a heartbeat.
func (a *Activities) inTurn(ctx context.Context, what string, get func(context.Context) error) error {
	return a.poll(ctx, what, func(ctx context.Context) (bool, error) {
		if err := a.turn(ctx, what); err != nil {
			return false, err
		}
		defer func() { <-a.pages }()
		err := get(ctx)
		beat(ctx, what)
		return true, err
	})
}

// turn waits for a place among the pages that are asked for at once.
func (a *Activities) turn(ctx context.Context, what string) error {
	tick := time.NewTicker(a.PollMax)
	defer tick.Stop()
	for {
		select {
		case a.pages <- struct{}{}:
			return nil
		case <-tick.C:
			beat(ctx, what+", after other lists")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unretried leaves it to poll to ask again, which gives up its turn meanwhile.
func unretried(o *ec2.Options) { o.Retryer = aws.NopRetryer{} }

// all is the filters that every volume of ours, or what is made of one, passes.
func (a *Activities) all(key string) []types.Filter {
	filters := []types.Filter{{Name: aws.String("tag-key"), Values: []string{key}}}
	if a.Cluster != "" {
		filters = append(filters, tagFilter(contract.TagCluster, a.Cluster))
	}
	return filters
}

// ListDisks implements contract.ListDisks.
func (a *Activities) ListDisks(ctx context.Context, in contract.ListDisksInput) (contract.ListDisksResult, error) {
	var disks []contract.DiskFacts
	var err error
	if len(in.Nodes) > 0 {
		disks, err = a.disksOn(ctx, in.Nodes)
	} else {
		disks, err = a.disks(ctx, a.all(contract.TagDisk))
	}
	if err != nil {
		return contract.ListDisksResult{}, translate(err, "", "")
	}
	if in.Node != "" {
		disks = slices.DeleteFunc(disks, func(d contract.DiskFacts) bool { return d.Node() != in.Node })
	}
	return contract.ListDisksResult{Disks: disks}, nil
}

// DisksOn is the disks whose active volumes are attached to one of the nodes, by
// id, with the volumes of theirs that are attached there and the modifications
// under way. At most 200 nodes. It changes nothing.
func (a *Activities) DisksOn(ctx context.Context, nodes []string) ([]contract.DiskFacts, error) {
	disks, err := a.disksOn(ctx, nodes)
	return disks, translate(err, "", "")
}

func (a *Activities) disksOn(ctx context.Context, nodes []string) ([]contract.DiskFacts, error) {
	if len(nodes) > maxNodes {
		return nil, contract.Refuse(contract.BadInput, "%d nodes were named", len(nodes)).WithNext("name at most %d at once", maxNodes)
	}
	for _, n := range nodes {
		if err := contract.ValidateInstanceID(n); err != nil {
			return nil, contract.Refuse(contract.BadInput, "%v", err).WithNext("name nodes by their instance ids")
		}
	}
	filters := a.all(contract.TagDisk)
	out := []contract.DiskFacts{}
	// A node's volumes stay in one call, and a disk is on one node.
	for part := range slices.Chunk(nodes, maxFilter-len(filters)) {
		disks, err := a.disks(ctx, append(slices.Clone(filters), types.Filter{Name: aws.String("attachment.instance-id"), Values: part}))
		if err != nil {
			return nil, err
		}
		for _, d := range disks {
			if slices.Contains(part, d.Node()) {
				out = append(out, d)
			}
		}
	}
	sortDisks(out)
	return out, a.addModifications(ctx, out)
}

// addModifications says which volumes are being modified. It asks for all of the
// account's modifications under way, which are few, in one list.
func (a *Activities) addModifications(ctx context.Context, disks []contract.DiskFacts) error {
	if len(disks) == 0 {
		return nil
	}
	until := map[string]time.Time{}
	pages := ec2.NewDescribeVolumesModificationsPaginator(a.api, &ec2.DescribeVolumesModificationsInput{
		Filters: []types.Filter{{Name: aws.String("modification-state"), Values: []string{
			string(types.VolumeModificationStateModifying), string(types.VolumeModificationStateOptimizing),
		}}},
		MaxResults: aws.Int32(modifyPage),
	})
	for pages.HasMorePages() {
		err := a.inTurn(ctx, "EC2 lists the modifications", func(ctx context.Context) error {
			page, err := pages.NextPage(ctx, unretried)
			if err != nil {
				return err
			}
			for _, m := range page.VolumesModifications {
				until[aws.ToString(m.VolumeId)] = optimizingUntil(m, a.Now())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, d := range disks {
		for i := range d.Volumes {
			d.Volumes[i].OptimizingUntil = until[d.Volumes[i].ID]
		}
	}
	return nil
}

// disks are those of the volumes that pass the filters, by id. Each volume is
// shown to the visitors.
func (a *Activities) disks(ctx context.Context, filters []types.Filter, visit ...func(types.Volume)) ([]contract.DiskFacts, error) {
	byDisk := map[contract.DiskID]*contract.DiskFacts{}
	err := a.eachPage(ctx, a.inTurn, filters, func(vs []types.Volume) {
		for _, v := range vs {
			id, ok := a.diskOf(v)
			if !ok {
				continue
			}
			if byDisk[id] == nil {
				byDisk[id] = &contract.DiskFacts{Disk: id}
			}
			add(byDisk[id], v)
			for _, see := range visit {
				see(v)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := []contract.DiskFacts{}
	for _, d := range byDisk {
		finish(d)
		out = append(out, *d)
	}
	sortDisks(out)
	return out, nil
}

// diskOf is the disk a volume's tag names; false when that is no disk's id.
func (a *Activities) diskOf(v types.Volume) (contract.DiskID, bool) {
	id := contract.DiskID(tagOf(v.Tags, contract.TagDisk))
	if err := id.Validate(); err != nil {
		a.Log.Warn("A volume has a bad disk tag", "volume", aws.ToString(v.VolumeId), "error", err)
		return "", false
	}
	return id, true
}

func sortDisks(ds []contract.DiskFacts) {
	slices.SortFunc(ds, func(x, y contract.DiskFacts) int { return strings.Compare(string(x.Disk), string(y.Disk)) })
}
