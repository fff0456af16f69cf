package ec2

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// maxTokens is how many client tokens are tried: one whose create failed stays
// burned for hours.
const maxTokens = 5

// CreateVolume implements contract.CreateVolume. Tags are set in the same call,
// so no volume exists that does not say whose it is.
func (a *Activities) CreateVolume(ctx context.Context, in contract.CreateVolumeInput) (contract.VolumeFacts, error) {
	f, err := a.createVolume(ctx, in)
	return f, translate(err, in.Disk, f.ID)
}

func (a *Activities) createVolume(ctx context.Context, in contract.CreateVolumeInput) (contract.VolumeFacts, error) {
	if err := contract.ValidateToken(in.Move); err != nil {
		return contract.VolumeFacts{}, contract.Refuse(contract.BadInput, "%v", err).WithDisk(in.Disk).WithNext("correct the input and start again")
	}
	made, err := a.volumes(ctx, tagFilter(contract.TagDisk, string(in.Disk)), tagFilter(contract.TagMove, in.Move),
		tagFilter(contract.TagIndex, strconv.Itoa(in.Index)), tagFilter(contract.TagGeneration, strconv.FormatUint(in.Generation, 10)))
	if err != nil {
		return contract.VolumeFacts{}, err
	}
	for _, v := range made {
		if v.State != types.VolumeStateError {
			f, err := a.created(ctx, aws.ToString(v.VolumeId))
			if err != nil {
				return f, err
			}
			return a.carry(ctx, in, f), nil
		}
	}
	req, err := a.createRequest(in)
	if err != nil {
		return contract.VolumeFacts{}, err
	}
	for n := 1; n <= maxTokens; n++ {
		token := fmt.Sprintf("%s-%d", in.Move, in.Index)
		if n > 1 {
			token = fmt.Sprintf("%s-%d", token, n)
		}
		req.ClientToken = &token
		out, err := a.api.CreateVolume(ctx, req)
		if code(err) == codeTokenMismatch {
			continue
		}
		if err != nil {
			return contract.VolumeFacts{}, err
		}
		id := aws.ToString(out.VolumeId)
		f, err := a.created(ctx, id)
		if err == nil && f.State != string(types.VolumeStateError) {
			return a.carry(ctx, in, f), nil
		}
		if err != nil {
			return contract.VolumeFacts{ID: id}, err
		}
		// Its asynchronous creation failed. It holds nothing: make room for the
		// next try.
		a.Log.Warn("A volume's creation failed; trying again", "disk", in.Disk, "volume", id)
		if _, err := a.api.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil && code(err) != codeVolumeNotFound {
			return contract.VolumeFacts{ID: id}, err
		}
	}
	return contract.VolumeFacts{}, contract.Refuse(contract.EC2Refused, "the volume could not be created with %d client tokens", maxTokens).
		WithNext("look in the EC2 console or CloudTrail why the volume's creation fails (often the KMS key)")
}

// created waits until a volume has left the state creating; it may have ended
// in error, or have vanished, which is the same. One that is not described has
// vanished only after Settle.
func (a *Activities) created(ctx context.Context, id string) (contract.VolumeFacts, error) {
	f := contract.VolumeFacts{ID: id}
	until := time.Now().Add(a.Settle)
	err := a.poll(ctx, "volume "+id+" is available", func(ctx context.Context) (bool, error) {
		asked := time.Now() // what is seen is no newer than the question
		v, err := a.volume(ctx, id)
		if err != nil {
			return false, err
		}
		if v == nil {
			f.State = string(types.VolumeStateError)
			return asked.After(until), nil
		}
		until = time.Now().Add(a.Settle)
		f = facts(*v)
		return v.State != types.VolumeStateCreating, nil
	})
	return f, err
}

// createRequest decides what is asked for: Spec, and Like where Spec is silent.
func (a *Activities) createRequest(in contract.CreateVolumeInput) (*ec2.CreateVolumeInput, error) {
	p, err := plan.KeepPerformance(in.Like, in.SizeGiB, in.Spec)
	if err != nil {
		return nil, err
	}
	req := &ec2.CreateVolumeInput{
		AvailabilityZone: &in.Zone, Size: aws.Int32(int32(in.SizeGiB)), VolumeType: types.VolumeType(p.Type),
	}
	if p.IOPS != 0 {
		req.Iops = &p.IOPS
	}
	if p.ThroughputMiBs != 0 {
		req.Throughput = &p.ThroughputMiBs
	}
	encrypted, key := in.Spec.KMSKeyID != "", in.Spec.KMSKeyID
	tags := map[string]string{}
	if like := in.Like; like != nil {
		encrypted = encrypted || like.Encrypted
		if key == "" {
			key = like.KMSKeyID
		}
		for k, v := range like.Tags {
			tags[k] = v
		}
	}
	if e := in.Spec.Encrypted; e != nil {
		encrypted = *e
	}
	if encrypted {
		req.Encrypted = aws.Bool(true)
		if key != "" {
			req.KmsKeyId = &key
		}
	}
	for k, v := range in.Spec.Tags {
		if ownTag(k) {
			return nil, contract.Refuse(contract.BadInput, "tag %q: names starting with ebb: or aws: are not the user's", k).WithNext("choose another tag name")
		}
		tags[k] = v
	}
	tags[contract.TagDisk] = string(in.Disk)
	tags[contract.TagGeneration] = strconv.FormatUint(in.Generation, 10)
	tags[contract.TagIndex] = strconv.Itoa(in.Index)
	tags[contract.TagRole] = string(in.Role)
	tags[contract.TagMove] = in.Move
	if in.Name != "" {
		tags[contract.TagName] = in.Name
	}
	if a.Cluster != "" {
		tags[contract.TagCluster] = a.Cluster
	}
	req.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: tagList(tags)}}
	return req, nil
}

// tagList is sorted: a request with a client token must be the same every time.
func tagList(m map[string]string) []types.Tag {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]types.Tag, len(keys))
	for i, k := range keys {
		out[i] = types.Tag{Key: aws.String(k), Value: aws.String(m[k])}
	}
	return out
}
