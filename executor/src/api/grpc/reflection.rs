//! The standard reflection service: which services there are, and their descriptions.

use std::pin::Pin;

use executor_api::reflection::server_reflection_request::MessageRequest;
use executor_api::reflection::server_reflection_response::MessageResponse;
use executor_api::reflection::server_reflection_server::ServerReflection;
use executor_api::reflection::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};
use executor_api::{DESCRIPTORS, DescriptorFile};
use futures_util::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

use super::Grpc;

#[tonic::async_trait]
impl ServerReflection for Grpc {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        // Descriptions are no secret, but a page in a browser has no business with them either.
        self.not_from_a_page(&request)?;
        let answers = request.into_inner().map(|asked| asked.map(answer));
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answer(asked: ServerReflectionRequest) -> ServerReflectionResponse {
    let response = match &asked.message_request {
        Some(MessageRequest::ListServices(_)) => {
            let names = DESCRIPTORS.iter().flat_map(|file| file.services);
            let service = names.map(|name| ServiceResponse { name: (*name).to_owned() }).collect();
            MessageResponse::ListServicesResponse(ListServiceResponse { service })
        }
        Some(MessageRequest::FileByFilename(name)) => file(|file| file.name == name),
        Some(MessageRequest::FileContainingSymbol(symbol)) => {
            file(|file| file.symbols.contains(&symbol.as_str()))
        }
        // Messages of this version of the language have no extensions.
        _ => unknown(Code::Unimplemented, "there are no extensions"),
    };
    ServerReflectionResponse {
        valid_host: asked.host.clone(),
        original_request: Some(asked),
        message_response: Some(response),
    }
}

fn file(fits: impl Fn(&DescriptorFile) -> bool) -> MessageResponse {
    match DESCRIPTORS.iter().find(|file| fits(file)) {
        Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            // None of them imports another.
            file_descriptor_proto: vec![file.bytes.into()],
        }),
        None => unknown(Code::NotFound, "this server has no such name"),
    }
}

fn unknown(code: Code, text: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.into(), error_message: text.to_owned() })
}
