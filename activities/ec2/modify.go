package ec2

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// ModifyVolume implements contract.ModifyVolume.
func (a *Activities) ModifyVolume(ctx context.Context, in contract.ModifyVolumeInput) (contract.VolumeFacts, error) {
	f, err := a.modify(ctx, in)
	return f, translate(err, in.Disk, in.Volume)
}

func (a *Activities) modify(ctx context.Context, in contract.ModifyVolumeInput) (contract.VolumeFacts, error) {
	v, err := a.ours(ctx, in.Disk, in.Volume)
	if err != nil {
		return contract.VolumeFacts{}, err
	}
	m, err := a.modification(ctx, in.Volume)
	if err != nil {
		return contract.VolumeFacts{}, err
	}
	// A modification under way that leads there, or a volume that is there, is
	// waited for: a no-op modification would spend one of four.
	if !fulfils(facts(v), in) && !leadsTo(m, in) {
		if _, most := plan.SizeLimits(string(v.VolumeType)); in.SizeGiB > most {
			return facts(v), contract.Refuse(contract.SizeLimit, "a %s volume has at most %d GiB, %d GiB were asked for", v.VolumeType, most, in.SizeGiB).
				WithNext("move the disk to another volume type: ebb shrink --type")
		}
		req := request(v, in)
		if repeated(ctx) {
			if begun, ok := a.begun(ctx, in); ok {
				return a.modified(ctx, in, m, a.remember(ctx, in.Disk, v, begun))
			}
		}
		var asked *types.VolumeModification
		out, err := a.api.ModifyVolume(ctx, req, once)
		if err == nil {
			asked = out.VolumeModification
		} else {
			known := m != nil && m.ModificationState != types.VolumeModificationStateFailed && m.ModificationState != types.VolumeModificationStateCompleted
			if code(err) != codeModificationState || known {
				return facts(v), err
			}
			begun, ok := a.begun(ctx, in)
			if !ok {
				return facts(v), err
			}
			asked = begun
		}
		return a.modified(ctx, in, m, a.remember(ctx, in.Disk, v, asked))
	}
	return a.modified(ctx, in, nil, a.remember(ctx, in.Disk, v, m))
}

// request asks for what is wanted and not there yet.
func request(v types.Volume, in contract.ModifyVolumeInput) *ec2.ModifyVolumeInput {
	req := &ec2.ModifyVolumeInput{VolumeId: &in.Volume}
	if in.SizeGiB > int64(aws.ToInt32(v.Size)) {
		req.Size = aws.Int32(int32(in.SizeGiB))
	}
	other := in.Type != "" && in.Type != string(v.VolumeType)
	if other {
		req.VolumeType = types.VolumeType(in.Type)
	}
	wants := func(want int32, have *int32) bool {
		return want > aws.ToInt32(have) || want > 0 && (other || in.Type != "" && want != aws.ToInt32(have))
	}
	if wants(in.IOPS, v.Iops) {
		req.Iops = &in.IOPS
	}
	if wants(in.ThroughputMiBs, v.Throughput) {
		req.Throughput = &in.ThroughputMiBs
	}
	return req
}

// begun looks for a modification whose answer an earlier run lost, which
// describes may show a little later only.
func (a *Activities) begun(ctx context.Context, in contract.ModifyVolumeInput) (m *types.VolumeModification, found bool) {
	until := time.Now().Add(a.Settle / 4)
	err := a.poll(ctx, "a modification of "+in.Volume+" shows", func(ctx context.Context) (bool, error) {
		asked := time.Now() // what is seen is no newer than the question
		var err error
		m, err = a.modification(ctx, in.Volume)
		if err != nil {
			return false, err
		}
		v, err := a.volume(ctx, in.Volume)
		found = leadsTo(m, in) || v != nil && fulfils(facts(*v), in)
		return found || asked.After(until), err
	})
	return m, err == nil && found
}

// modified waits until the volume has what was asked for and may be used. before
// is the modification that was there before the one it waits for, nil for none:
// describes may go on showing it for a while, and how it ended says nothing.
// times is when the disk was modified, for the facts it returns.
func (a *Activities) modified(ctx context.Context, in contract.ModifyVolumeInput, before *types.VolumeModification, times []time.Time) (contract.VolumeFacts, error) {
	var f contract.VolumeFacts
	err := a.poll(ctx, "volume "+in.Volume+" is modified", func(ctx context.Context) (bool, error) {
		m, err := a.modification(ctx, in.Volume)
		if err != nil {
			return false, err
		}
		if m != nil && before != nil && !aws.ToTime(m.StartTime).After(aws.ToTime(before.StartTime)) {
			m = nil
		}
		if m != nil {
			switch m.ModificationState {
			case types.VolumeModificationStateFailed:
				return false, contract.Refuse(contract.ModificationLimit, "EBS could not modify the volume: %s", aws.ToString(m.StatusMessage)).
					WithNext("try again later")
			case types.VolumeModificationStateModifying:
				return false, nil
			}
		}
		v, err := a.volume(ctx, in.Volume)
		if err != nil || v == nil {
			return false, err
		}
		f = facts(*v)
		f.Modified = times
		return fulfils(f, in), nil
	})
	if err != nil {
		return f, fmt.Errorf("modify: %w", err)
	}
	return f, nil
}

// modification is the volume's last one, nil when there was none. A volume that
// is not known has none: it may have been made a moment ago.
func (a *Activities) modification(ctx context.Context, volume string) (*types.VolumeModification, error) {
	out, err := a.api.DescribeVolumesModifications(ctx, &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{volume}})
	if c := code(err); c == codeModificationNotFound || c == codeVolumeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var last *types.VolumeModification
	for i, m := range out.VolumesModifications {
		if last == nil || aws.ToTime(m.StartTime).After(aws.ToTime(last.StartTime)) {
			last = &out.VolumesModifications[i]
		}
	}
	return last, nil
}

func fulfils(f contract.VolumeFacts, in contract.ModifyVolumeInput) bool {
	if in.Type != "" {
		return f.SizeGiB >= in.SizeGiB && f.Type == in.Type && (in.IOPS == 0 || f.IOPS == in.IOPS) && (in.ThroughputMiBs == 0 || f.ThroughputMiBs == in.ThroughputMiBs)
	}
	return f.SizeGiB >= in.SizeGiB && f.IOPS >= in.IOPS && f.ThroughputMiBs >= in.ThroughputMiBs
}

func leadsTo(m *types.VolumeModification, in contract.ModifyVolumeInput) bool {
	if m == nil || m.ModificationState == types.VolumeModificationStateFailed || m.ModificationState == types.VolumeModificationStateCompleted {
		return false
	}
	return fulfils(contract.VolumeFacts{
		SizeGiB: int64(aws.ToInt32(m.TargetSize)), Type: string(m.TargetVolumeType), IOPS: aws.ToInt32(m.TargetIops), ThroughputMiBs: aws.ToInt32(m.TargetThroughput),
	}, in)
}
