module my-agent

go 1.24

require mentat.internal/sdk v0.0.0

replace mentat.internal/sdk => ./mentat-sdk
