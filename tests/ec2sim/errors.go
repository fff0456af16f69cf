package ec2sim

import (
	"fmt"
	"net/http"
)

// apiError is an error the way EC2 tells it to its client.
type apiError struct {
	Code    string
	Message string
	Status  int
}

func (e *apiError) Error() string { return e.Code + ": " + e.Message }

func apiErr(code, format string, args ...any) *apiError {
	return &apiError{Code: code, Message: fmt.Sprintf(format, args...), Status: statusOf(code)}
}

// statusOf is the HTTP status EC2 sends a code with.
func statusOf(code string) int {
	switch code {
	case "RequestLimitExceeded", "Unavailable", "ServiceUnavailable":
		return http.StatusServiceUnavailable
	case "InternalError", "InternalFailure", "InsufficientVolumeCapacity":
		return http.StatusInternalServerError
	case "DryRunOperation":
		return http.StatusPreconditionFailed
	case "UnauthorizedOperation":
		return http.StatusForbidden
	}
	return http.StatusBadRequest
}

func errVolumeNotFound(id string) error {
	return apiErr("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
}

func errSnapshotNotFound(id string) error {
	return apiErr("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
}

func errInstanceNotFound(id string) error {
	return apiErr("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
}

func errMissing(param string) error {
	return apiErr("MissingParameter", "The request must contain the parameter %s", param)
}

func errValue(value, param, why string) error {
	return apiErr("InvalidParameterValue", "Value (%s) for parameter %s is invalid. %s", value, param, why)
}
