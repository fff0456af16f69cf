package ec2

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/ebb-storage/ebb/internal/contract"
)

// EC2 error codes the activities decide by.
const (
	codeVolumeNotFound       = "InvalidVolume.NotFound"
	codeSnapshotNotFound     = "InvalidSnapshot.NotFound"
	codeSnapshotInUse        = "InvalidSnapshot.InUse"
	codeInstanceNotFound     = "InvalidInstanceID.NotFound"
	codeAttachmentNotFound   = "InvalidAttachment.NotFound"
	codeModificationNotFound = "InvalidVolumeModification.NotFound"
	codeTokenMismatch        = "IdempotentParameterMismatch"
	codeInvalidParameter     = "InvalidParameterValue"
	codeVolumeInUse          = "VolumeInUse"
	codeIncorrectState       = "IncorrectState"
	codeModificationState    = "IncorrectModificationState"
)

// code is EC2's error code in err, or empty.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// translate is the one place where EC2's errors become refusals. A refusal that
// exists already is completed with the disk and volume; an error that may pass
// stays as it is, to be retried.
func translate(err error, disk contract.DiskID, volume string) error {
	if err == nil {
		return nil
	}
	r, ok := contract.AsRefusal(err)
	if !ok {
		r = refusal(err)
	}
	if r == nil {
		return fmt.Errorf("disk %s volume %s: %w", disk, volume, err)
	}
	if r.Disk == "" {
		r.Disk = disk
	}
	if r.Volume == "" {
		r.Volume = volume
	}
	return r
}

var unauthorized = regexp.MustCompile(`not authorized to perform: (ec2:[A-Za-z]+)`)

// refusal says which errors are final, and what to do about them.
func refusal(err error) *contract.Refusal {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return nil
	}
	msg := api.ErrorMessage()
	switch c := api.ErrorCode(); c {
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure", "OptInRequired":
		action := "the call"
		var op *smithy.OperationError
		if errors.As(err, &op) {
			action = "ec2:" + op.Operation()
		}
		// A create call that sets tags needs a second permission; EC2 says which is
		// missing.
		if m := unauthorized.FindStringSubmatch(msg); m != nil {
			action = m[1]
		}
		msg, _, _ = strings.Cut(msg, " Encoded authorization failure message:") // of no use to a person
		return contract.Refuse(contract.PermissionMissing, "the worker may not do %s: %s", action, msg).
			WithNext("allow %s in the IAM policy of the worker's role", action)
	case "VolumeModificationRateExceeded", codeModificationState, "VolumeModificationSizeLimitExceeded":
		if c == "VolumeModificationSizeLimitExceeded" {
			return contract.Refuse(contract.SizeLimit, "%s", msg).WithNext("raise the account's storage quota for modifications")
		}
		return contract.Refuse(contract.ModificationLimit, "EBS does not modify the volume now: %s", msg).
			WithNext("wait until the last modification is complete, at most four are possible in 24 hours")
	case "AttachmentLimitExceeded", "MaximumEbsAttachmentsExceeded":
		return contract.Refuse(contract.AttachSlotsFull, "the instance can attach no more volumes: %s", msg).
			WithNext("detach a volume from the node, or use another one")
	case "InvalidVolume.ZoneMismatch":
		return contract.Refuse(contract.ZoneMismatch, "volume and instance are in different zones: %s", msg).
			WithNext("use a node in the volume's zone")
	case codeInstanceNotFound, "InvalidInstanceID.Malformed", "IncorrectInstanceState":
		return contract.Refuse(contract.NodeUnknown, "%s", msg).WithNext("check the instance id and that it is running")
	case codeVolumeNotFound:
		return contract.Refuse(contract.DiskIncomplete, "EC2 does not know the volume: %s", msg).
			WithNext("look for the volume, or restore it from a snapshot")
	case "VolumeLimitExceeded", "MaxIOPSLimitExceeded", "VolumeTypeNotAvailableInZone", "InsufficientVolumeCapacity",
		"UnsupportedOperation", "Unsupported", "OperationNotPermitted", "InvalidParameterCombination", codeInvalidParameter,
		"InvalidParameter", "MissingParameter", "UnknownParameter", "InvalidZone.NotFound", "InvalidVolume.Malformed", "UnknownVolumeType.Unsupported",
		"InvalidKmsKey.InvalidKeyState", "KMSKeyNotAccessibleFault", "EncryptedVolumesNotSupported", "TagLimitExceeded",
		"SnapshotLimitExceeded", "Blocked", "PendingVerification", "ValidationError":
		return contract.Refuse(contract.EC2Refused, "EC2 answered %s: %s", c, strings.TrimSpace(msg)).
			WithNext("correct what EC2 names, or raise the account's quota, then start again")
	}
	return nil
}
