package ec2_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// retype modifies a volume that was just made, and tells its shape.
func (f fixture) retype(v, typ string, iops, mibs int32) (got contract.VolumeFacts, no error) {
	f.t.Helper()
	err := f.until(func() (err error) {
		got, err = f.ModifyVolume(f.t.Context(), contract.ModifyVolumeInput{Disk: disk, Volume: v, Type: typ, IOPS: iops, ThroughputMiBs: mibs})
		if _, refused := contract.AsRefusal(err); refused {
			no, err = err, nil
		}
		return err
	})
	require.NoError(f.t, err)
	return got, no
}

func TestModifyVolumeInPlace(t *testing.T) {
	f := start(t)
	v := f.create(50).ID
	for i, to := range []struct {
		typ        string
		iops, mibs int32
	}{{"gp3", 9000, 500}, {"gp3", 3000, 125}, {"io2", 3000, 0}, {"gp3", 4000, 250}, {"gp2", 0, 0}, {"gp3", 3000, 128}} {
		for range 2 { // again spends nothing
			got, err := f.retype(v, to.typ, to.iops, to.mibs)
			require.NoError(t, err)
			require.Equal(t, []any{int64(50), to.typ}, []any{got.SizeGiB, got.Type})
			if to.typ != "gp2" {
				require.Equal(t, []any{to.iops, to.mibs}, []any{got.IOPS, got.ThroughputMiBs}, "less is made of more, too")
			}
		}
		sim, _ := f.sim.Volume(v)
		require.Len(t, sim.Modifications, i+1)
		if i == 0 {
			require.Equal(t, unix(sim.Modifications[0].Start), f.tag(v, contract.TagModified))
			_, err := f.retype(v, "gp3", 5000, 125) // still optimizing
			refused(t, err, contract.ModificationLimit)
		}
		require.NoError(t, f.sim.Advance(9*time.Hour))
	}
}

func TestModifyVolumeInPlaceLosesAnAnswer(t *testing.T) {
	f := start(t)
	v := f.create(50).ID
	f.sim.AddFault(ec2sim.Fault{Action: "ModifyVolume", LoseAnswer: true})
	got, err := f.retype(v, "io2", 5000, 0)
	require.NoError(t, err)
	require.Equal(t, []any{"io2", int32(5000)}, []any{got.Type, got.IOPS})
	sim, _ := f.sim.Volume(v)
	require.Len(t, sim.Modifications, 1)
}

// A volume that somebody else changes to something else meanwhile is not what was
// asked for.
func TestModifyVolumeInPlaceBesideOthers(t *testing.T) {
	f := start(t)
	v := f.create(50).ID
	_, err := f.api.ModifyVolume(t.Context(), &awsec2.ModifyVolumeInput{VolumeId: &v, VolumeType: types.VolumeTypeGp3, Iops: aws.Int32(6000)})
	require.NoError(t, err)
	_, err = f.retype(v, "gp3", 5000, 125)
	refused(t, err, contract.ModificationLimit)
	// What EBS does not take is told.
	require.NoError(t, f.sim.Advance(9*time.Hour))
	_, err = f.retype(v, "io2", 60000, 0)
	refused(t, err, contract.EC2Refused)
}
